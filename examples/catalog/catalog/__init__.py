"""The shop's catalog: what it sells, as JSON."""
