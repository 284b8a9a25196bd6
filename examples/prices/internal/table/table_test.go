package table

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	prices, err := Parse(strings.NewReader("# id,cents,currency\n1,250,EUR\n"))
	if err != nil || prices[1] != (Price{250, "EUR"}) {
		t.Fatal(prices, err)
	}
	if _, err := Parse(strings.NewReader("one,250,EUR\n")); err == nil {
		t.Fatal("a name was taken for a number")
	}
}
