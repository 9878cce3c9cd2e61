//go:build ignore

// Picture turns what a command printed into a picture of a terminal:
//
//	(echo '$ make quickstart'; make -s quickstart 2>&1) | go run docs/picture.go > docs/run.svg
package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"log"
	"os"
	"strings"
)

const (
	columns    = 112
	lineHeight = 17
	margin     = 16
)

func main() {
	log.SetFlags(0)
	var lines []string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line := []rune(strings.TrimRight(in.Text(), " \r"))
		if len(line) > columns {
			line = append(line[:columns-1], '…')
		}
		lines = append(lines, string(line))
	}
	width, height := 2*margin+columns*73/10, 2*margin+lineHeight*len(lines)
	fmt.Printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="12">`+"\n", width, height)
	fmt.Printf(`<rect width="%d" height="%d" rx="8" fill="#1b1f27"/>`+"\n", width, height)
	for i, line := range lines {
		fmt.Printf(`<text x="%d" y="%d" fill="%s" xml:space="preserve">`, margin, margin+12+i*lineHeight, color(line))
		if err := xml.EscapeText(os.Stdout, []byte(line)); err != nil {
			log.Fatal(err)
		}
		fmt.Println("</text>")
	}
	fmt.Println("</svg>")
}

func color(line string) string {
	switch {
	case strings.HasPrefix(line, "$"):
		return "#ffffff"
	case strings.HasPrefix(line, "epoch"):
		return "#8fd18f"
	case strings.HasPrefix(line, "evaluation"), strings.HasPrefix(line, "  "):
		return "#f0d58c"
	case strings.HasPrefix(line, "coordinator"):
		return "#8fb8e8"
	case strings.HasPrefix(line, "lift: "):
		return "#f08c8c"
	}
	return "#b8bfca"
}
