//! Netlink sockets: send a batch, read acknowledgements and dumps.
