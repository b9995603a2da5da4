package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzMachineFile wants of any machine file that it is refused in one line,
// without names of our code, or that it has no more in it than the file holds.
func FuzzMachineFile(f *testing.F) {
	f.Add([]byte("name: web\ncpus: 2\nmemory: 4G\nfirmware: uefi\nsecureBoot: true\ntpm: '2.0'\nbus: virtio\nbootOrder: [disk, cdrom]\n" +
		"disks: [{name: disk0, bus: scsi}]\nnics: [{type: virtio, network: lan, mac: '52:54:00:12:34:56'}]\n" +
		"product: {name: Web, vendor: ACME}\neula: |\n  Be good.\nproperties: [{key: host, type: string, userConfigurable: true}]\n"))
	f.Add([]byte("a: &a [x]\neula: *a\n"))
	f.Add([]byte("cpus: two\n"))
	f.Add([]byte("--- {}\n--- {}\n"))
	f.Add([]byte("memory: 9999999999G\nfirmware: [uefi]\nnics: {}\n"))
	f.Add([]byte("{\"name\": \"\\u2028\\x41\", ? {}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m machineFile
		if err := decodeMachineFile(data, &m); err != nil {
			if s := err.Error(); strings.Contains(s, "main.") && !strings.Contains(string(data), "main.") {
				t.Errorf("names of ours: %q", s)
			}
			return
		}
		// An escape of two bytes can mean a character of three.
		if n := weight(reflect.ValueOf(m)); n > 2*len(data) {
			t.Errorf("%d bytes become %d", len(data), n)
		}
	})
}

// weight is the size of all texts, with one for each entry of a list.
func weight(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice:
		for i := range v.Len() {
			n += 1 + weight(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			n += weight(v.Field(i))
		}
	}
	return n
}

// FuzzConfig wants of any configuration that it is refused, and says of which
// file, or that it stands over itself as it is.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("cache: /var/cache/davit\njobs: 4\nmaxMemory: 1G\n"))
	f.Add([]byte("policy: [a.yaml, b.yaml]\nforbidUnverified: true\nregistries: {example.com: {plainHTTP: true, mirrors: [m.example.com]}}\n"))
	f.Add([]byte("# nothing\n"))
	f.Add([]byte("jobs: -1\n"))
	f.Add([]byte("{}\n---\n{}\n"))
	g := &globals{stderr: &console{}}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := g.readConfig(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("which file: %v", err)
			}
			if !reflect.DeepEqual(c, config{}) {
				t.Errorf("refused, and yet there is %+v", c)
			}
			return
		}
		if got, want := fmt.Sprintf("%+v", mergeConfig(c, config{})), fmt.Sprintf("%+v", c); got != want {
			t.Errorf("over nothing %s is %s", want, got)
		}
	})
}
