// Package table reads a table of prices: lines of id,cents,currency.
package table

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Price is what one item costs.
type Price struct {
	Cents    int    `json:"cents"`
	Currency string `json:"currency"`
}

// Table has the prices by item.
type Table map[int]Price

// Load reads a file.
func Load(path string) (Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Parse(file)
}

// Parse reads the lines.
func Parse(from io.Reader) (Table, error) {
	reader := csv.NewReader(from)
	reader.FieldsPerRecord = 3
	reader.Comment = '#'
	records, err := reader.ReadAll()
	if err != nil {
		return nil, err
	}
	prices := Table{}
	for _, record := range records {
		id, err := strconv.Atoi(record[0])
		if err != nil {
			return nil, fmt.Errorf("item %q: %w", record[0], err)
		}
		cents, err := strconv.Atoi(record[1])
		if err != nil {
			return nil, fmt.Errorf("price of item %d: %w", id, err)
		}
		prices[id] = Price{Cents: cents, Currency: record[2]}
	}
	return prices, nil
}
