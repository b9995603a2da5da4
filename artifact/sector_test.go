package artifact

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/davit-oci/davit/disk"
)

// A sectored disk says what sectors it has.
type sectored struct {
	*bytes.Reader
	size int
}

func (s sectored) SectorSize() int { return s.size }

// An artifact knows what sectors its disks have. That changes nothing but the
// descriptor, and nothing at all where they have 512 bytes.
func TestSectorSize(t *testing.T) {
	content := testDisk(77, 1<<20)
	m := newMemory()
	var plain *Packed
	var manifests []string
	for _, test := range []struct{ said, want int }{{0, 0}, {512, 0}, {4096, 4096}, {2048, 0}} {
		desc, p := m.pack(t, []Source{{Name: "disk0", Reader: sectored{bytes.NewReader(content), test.said}}}, PackOptions{})
		im := m.open(t, desc)
		if got := disk.SectorSize(im.Disks[0].Reader(t.Context())); got != test.want || im.Disks[0].Sector != test.want {
			t.Errorf("%d said: the artifact has sectors of %d bytes, want %d", test.said, got, test.want)
		}
		if noted := bytes.Contains(im.Raw, []byte(`"vnd.davit.disk.sector":"4096"`)); noted != (test.want != 0) {
			t.Errorf("%d said: manifest %s", test.said, im.Raw)
		}
		if plain == nil {
			plain = p
		}
		if p.Disks[0].Index.Digest != plain.Disks[0].Index.Digest || p.Disks[0].Digest != plain.Disks[0].Digest {
			t.Errorf("%d said: the disk is another", test.said)
		}
		manifests = append(manifests, string(desc.Digest))
	}
	if manifests[0] != manifests[1] || manifests[0] != manifests[3] || manifests[0] == manifests[2] {
		t.Errorf("manifests %v", manifests)
	}

	// Two disks of one content can have different sectors.
	desc, _ := m.pack(t, []Source{
		{Name: "a", Reader: sectored{bytes.NewReader(content), 512}}, {Name: "b", Reader: sectored{bytes.NewReader(content), 4096}},
	}, PackOptions{})
	im := m.open(t, desc)
	if got := fmt.Sprint(im.Disks[0].Sector, im.Disks[1].Sector); got != "0 4096" {
		t.Errorf("two disks with sectors of %s bytes", got)
	}
}
