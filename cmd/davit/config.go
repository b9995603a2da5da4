package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// config is a configuration file. Nothing in it can switch off a check.
type config struct {
	Registries  map[string]registryConfig `yaml:"registries"`
	Cache       string                    `yaml:"cache"`
	Jobs        int                       `yaml:"jobs"`
	MaxMemory   size                      `yaml:"maxMemory"`
	Policy      stringList                `yaml:"policy"`
	TrustedRoot string                    `yaml:"trustedRoot"`

	// ForbidUnverified takes --unverified away.
	ForbidUnverified *bool `yaml:"forbidUnverified"`

	// systemPolicy says that the system's configuration or its policy folder
	// has a policy: one that no flag replaces.
	systemPolicy bool
}

type registryConfig struct {
	PlainHTTP  *bool    `yaml:"plainHTTP"`
	CAFile     string   `yaml:"caFile"`
	ClientCert string   `yaml:"clientCert"`
	Mirrors    []string `yaml:"mirrors"`

	// TokenServices get the credentials though they are of another domain.
	TokenServices []string `yaml:"tokenServices"`
}

// stringList is one string or a list of them.
type stringList []string

func (l *stringList) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		var one string
		err := node.Decode(&one)
		*l = stringList{one}
		return err
	}
	return node.Decode((*[]string)(l))
}

// loadConfig reads the user's file and the system's.
func (g *globals) loadConfig() error {
	path, named := g.configFile, true
	if path == "" {
		path = os.Getenv("DAVIT_CONFIG")
	}
	if path == "" {
		path, named = userConfig(), false
	}
	user, err := g.readConfig(path)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	system, err := g.readConfig(filepath.Join(g.system, "config.yaml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	policies, err := os.ReadDir(filepath.Join(g.system, "policy.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the system's policies: %w", err)
	}
	g.config = mergeConfig(user, system)
	g.config.systemPolicy = len(policies) > 0 || len(system.Policy) > 0
	return nil
}

// userConfig is where the user's file is looked for, "" where there is no home.
func userConfig() string {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "davit", "config.yaml")
}

// readConfig reads one file. A key that davit does not know is an error: a
// misspelt policy must not be no policy.
func (g *globals) readConfig(path string) (config, error) {
	var c config
	if path == "" {
		return c, fs.ErrNotExist
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	g.stderr.secrets.LearnInput(string(data)) // errors of YAML quote it
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err = d.Decode(&c)
	if errors.Is(err, io.EOF) {
		return config{}, nil // only comments
	}
	if err != nil {
		return config{}, fmt.Errorf("reading the configuration %s: %w", path, yamlError(err))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return config{}, fmt.Errorf("reading the configuration %s: more than one document", path)
	}
	if c.Jobs < 0 {
		return config{}, fmt.Errorf("reading the configuration %s: jobs: %d is not at least 1", path, c.Jobs)
	}
	return c, nil
}

// mergeConfig lets the user's settings stand over the system's, and the
// system's policy and forbidUnverified over the user's.
func mergeConfig(user, system config) config {
	c := user
	if c.Cache == "" {
		c.Cache = system.Cache
	}
	if c.Jobs == 0 {
		c.Jobs = system.Jobs
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = system.MaxMemory
	}
	if c.TrustedRoot == "" {
		c.TrustedRoot = system.TrustedRoot
	}
	if len(system.Policy) > 0 {
		c.Policy = system.Policy
	}
	if system.ForbidUnverified != nil {
		c.ForbidUnverified = system.ForbidUnverified
	}
	c.Registries = make(map[string]registryConfig)
	for host, r := range system.Registries {
		c.Registries[host] = r
	}
	for host, r := range user.Registries {
		below := c.Registries[host]
		if r.PlainHTTP == nil {
			r.PlainHTTP = below.PlainHTTP
		}
		if r.CAFile == "" {
			r.CAFile = below.CAFile
		}
		if r.ClientCert == "" {
			r.ClientCert = below.ClientCert
		}
		if r.Mirrors == nil {
			r.Mirrors = below.Mirrors
		}
		if r.TokenServices == nil {
			r.TokenServices = below.TokenServices
		}
		c.Registries[host] = r
	}
	return c
}
