package configs

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"gopkg.in/yaml.v3"
)

//go:embed *.yaml
var files embed.FS

// Published are results that were published, each with the config that reproduces it.
type Published struct {
	// Sources are the papers, by a short name.
	Sources   map[string]string      `yaml:"sources"`
	Datasets  map[string]RowData     `yaml:"datasets"`
	Backbones map[string]RowBackbone `yaml:"backbones"` // by hub name
	Rows      []Row                  `yaml:"rows"`

	files fs.FS
}

// Row is one result.
type Row struct {
	// Name is that of the config, and of the run.
	Name    string `yaml:"name"`
	Dataset string `yaml:"dataset"` // a key of Published.Datasets
	Source  string `yaml:"source"`  // a key of Published.Sources
	Table   int    `yaml:"table"`   // of the paper; 0: not told
	Figures `yaml:",inline"`
}

// Figures are accuracies in percent; nil: not known.
type Figures struct {
	All    *float64 `yaml:"all" json:"all"`
	Many   *float64 `yaml:"many" json:"many"`
	Medium *float64 `yaml:"medium" json:"medium"`
	Few    *float64 `yaml:"few" json:"few"`
}

// RowData is what a row's data are, and where a person gets them.
type RowData struct {
	Title     string  `yaml:"title"`
	Classes   int     `yaml:"classes"`
	Train     int     `yaml:"train"` // images
	Test      int     `yaml:"test"`
	Gigabytes float64 `yaml:"gigabytes"` // to fetch, about
	Get       string  `yaml:"get"`       // lines for a person
}

// RowBackbone is the shape of a backbone, known before it is fetched. Heads are of 64 channels, the MLP is four times as wide as the rest.
type RowBackbone struct {
	Title      string  `yaml:"title"`
	Gigabytes  float64 `yaml:"gigabytes"` // to fetch, about
	Family     string  `yaml:"family"`    // clip or timm
	Width      int     `yaml:"width"`
	Layers     int     `yaml:"layers"`
	Patch      int     `yaml:"patch"`
	Resolution int     `yaml:"resolution"`
}

// PublishedRows are the rows that came with this build.
var PublishedRows = sync.OnceValues(func() (*Published, error) { return ReadPublished(files) })

// ReadPublished reads rows.yaml and holds it to the configs beside it.
func ReadPublished(from fs.FS) (*Published, error) {
	text, err := fs.ReadFile(from, "rows.yaml")
	if err != nil {
		return nil, err
	}
	p := &Published{files: from}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("rows.yaml: %w", err)
	}
	for _, r := range p.Rows {
		if err := p.check(r); err != nil {
			return nil, fmt.Errorf("rows.yaml: row %s: %w", r.Name, err)
		}
	}
	return p, nil
}

func (p *Published) check(r Row) error {
	if _, ok := p.Sources[r.Source]; !ok {
		return fmt.Errorf("no source %q", r.Source)
	}
	if d, ok := p.Datasets[r.Dataset]; !ok || d.Classes < 1 || d.Train < d.Classes || d.Test < 1 {
		return fmt.Errorf("no dataset %q with classes and images", r.Dataset)
	}
	c, err := p.Config(r.Name)
	if err != nil {
		return err
	}
	if _, ok := p.Backbones[c.Model.Backbone]; !ok {
		return fmt.Errorf("no backbone %q", c.Model.Backbone)
	}
	for _, f := range []*float64{r.All, r.Many, r.Medium, r.Few} {
		if f != nil && !(0 < *f && *f <= 100) {
			return fmt.Errorf("%v is no percentage", *f)
		}
	}
	return nil
}

// Row is the row of that name.
func (p *Published) Row(name string) (Row, bool) {
	i := slices.IndexFunc(p.Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return Row{}, false
	}
	return p.Rows[i], true
}

// Names are those of the rows, in their order.
func (p *Published) Names() []string {
	names := make([]string, len(p.Rows))
	for i, r := range p.Rows {
		names[i] = r.Name
	}
	return names
}

// Text is the config of a row, as YAML.
func (p *Published) Text(name string) ([]byte, error) { return fs.ReadFile(p.files, name+".yaml") }

// Config is the config of a row with overrides (see [Parse]).
func (p *Published) Config(name string, overrides ...string) (*Config, error) {
	text, err := p.Text(name)
	if err != nil {
		return nil, err
	}
	return Parse(name+".yaml", text, overrides)
}
