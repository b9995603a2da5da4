package libvirt

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// devices reads <devices>: those of the model, in the order in which they need
// each other, then what is left.
func (r *reader) devices() error {
	e := r.top["devices"]
	kinds := make(map[string]int)
	if e != nil {
		for _, c := range e.Children {
			if kinds[c.Name.Local]++; kinds[c.Name.Local] > machine.MaxDisks {
				return malformed(c, "more than %d", machine.MaxDisks)
			}
		}
	}
	if err := r.controllers(e.All("controller")); err != nil {
		return err
	}
	if err := r.disks(e.All("disk")); err != nil {
		return err
	}
	for i, c := range e.All("interface") {
		if err := r.nic(c, i); err != nil {
			return err
		}
	}
	if err := r.video(e.All("video")); err != nil {
		return err
	}
	r.tpm(e.All("tpm"))
	if e != nil {
		r.others(e)
	}
	return r.bootOrder()
}

// nicTypes are libvirt's words for cards that have another here. Those of
// VirtualBox are in its own.
var nicTypes = map[string]machine.NICType{
	"virtio-transitional":     machine.VirtioNet,
	"virtio-non-transitional": machine.VirtioNet,
	"vlance":                  machine.PCnet,
	"am79c970a":               machine.PCnet,
	"am79c973":                machine.PCnet,
	"82540em":                 machine.E1000,
	"82545em":                 machine.E1000,
	"82543gc":                 machine.E1000,
	"e1000-82544gc":           machine.E1000,
	"e1000-82545em":           machine.E1000,
}

func (r *reader) nic(e *xmltree.Element, i int) error {
	field := fmt.Sprintf("devices/interface[%d]", i)
	kind := e.Get("type")
	source := e.Child("source")
	n := machine.NIC{}
	switch kind {
	case "network", "bridge", "internal":
		// A network of libvirt, a bridge, a network of the hypervisor's own.
		for _, name := range []string{"network", "bridge", "name"} {
			if source != nil && n.Network == "" {
				n.Network = source.Get(name)
			}
		}
	case "":
		return malformed(e, "no type")
	case "hostdev":
		r.unread(field, kind, "a card of the host is never carried")
		return nil
	default:
		r.unread(field+"/type", kind, "how the host connects it is not carried")
	}
	if model := e.Child("model"); model != nil {
		word := strings.ToLower(model.Get("type"))
		n.Type = machine.NICType(word)
		if t, ok := nicTypes[word]; ok {
			n.Type = t
		}
	}
	if mac := e.Child("mac"); mac != nil {
		var err error
		if n.MAC, err = parseMAC(mac.Get("address")); err != nil {
			return malformed(mac, "%v", err)
		}
	}
	for _, c := range e.Children {
		switch name := c.Name.Local; name {
		case "source", "model", "mac", "target", "boot", "alias", "address", "driver", "rom", "acpi", "tune", "guest", "backend", "coalesce":
		case "link":
			if c.Get("state") == "down" {
				r.unread(field+"/link", "down", "the cable is plugged in")
			}
		default:
			r.unread(field+"/"+name, brief(c), "it is not carried")
		}
	}
	if err := r.boot(e, machine.BootNetwork, len(r.m.NICs)); err != nil {
		return err
	}
	r.m.NICs = append(r.m.NICs, n)
	return nil
}

// parseMAC reads the address of one card. libvirt takes one digit for two.
func parseMAC(s string) (string, error) {
	var mac [6]byte
	parts := strings.Split(s, ":")
	if len(parts) != len(mac) {
		return "", fmt.Errorf("%q is not an address", s)
	}
	for i, p := range parts {
		b, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) > 2 {
			return "", fmt.Errorf("%q is not an address", s)
		}
		mac[i] = byte(b)
	}
	if mac[0]&1 != 0 {
		return "", fmt.Errorf("%q is an address of several cards", s)
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]), nil
}

func (r *reader) video(all []*xmltree.Element) error {
	var read bool
	for i, e := range all {
		model := e.Child("model")
		if model == nil || model.Get("type") == "none" {
			continue
		}
		if read {
			r.unread(fmt.Sprintf("devices/video[%d]", i), model.Get("type"), "the machine has one graphics card")
			continue
		}
		read = true
		d := &r.m.Display
		d.Type = strings.ToLower(model.Get("type"))
		if d.Type == "vbox" {
			d.Type = "vboxvga"
		}
		if vram := model.Get("vram"); vram != "" {
			n, err := number(model, "vram", vram, 1<<30)
			if err != nil {
				return err
			}
			d.Memory = int64(n) << 10
		}
		if heads := model.Get("heads"); heads != "" {
			var err error
			if d.Monitors, err = number(model, "heads", heads, 1<<16); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) tpm(all []*xmltree.Element) {
	for i, e := range all {
		field := fmt.Sprintf("devices/tpm[%d]", i)
		backend := e.Child("backend")
		if backend == nil || backend.Get("type") != "emulator" {
			r.unread(field, brief(e), "a chip of the host is never carried")
			continue
		}
		version := machine.TPM(backend.Get("version"))
		switch version {
		case "":
			version = machine.TPM20
			if e.Get("model") == "tpm-tis" {
				version = machine.TPM12
			}
		case machine.TPM12, machine.TPM20:
		default:
			r.unread(field, string(version), "a TPM of that version is not known")
			continue
		}
		if r.m.TPM != "" {
			r.unread(field, string(version), "the machine has one TPM")
			continue
		}
		r.m.TPM = version
		r.unread(field, string(version), "what it holds is not carried: the machine gets an empty one")
	}
}

// others notes the devices that the model has not, but for those that each
// machine of libvirt has.
func (r *reader) others(devices *xmltree.Element) {
	index := make(map[string]int)
	for _, e := range devices.Children {
		name := e.Name.Local
		i := index[name]
		index[name]++
		reason := "it is not carried"
		value := brief(e)
		switch name {
		case "disk", "controller", "interface", "video", "tpm",
			"emulator", "hub", "memballoon", "panic", "redirfilter", "audio", "pstore":
			continue
		case "input":
			if kind := e.Get("type"); kind != "passthrough" && kind != "evdev" {
				continue
			}
			reason = "a device of the host is never carried"
		case "graphics":
			if value = e.Get("type"); value == "vnc" && local(e) {
				continue
			}
			reason = "where the screen is shown, and with which password, is not carried"
		case "serial":
			if value = e.Get("type"); value == "pty" && i == 0 {
				continue
			}
		case "console":
			if value = e.Get("type"); value == "pty" || i == 0 && devices.Child("serial") != nil {
				continue // the second is the first serial port once more
			}
		case "channel":
			if target := e.Child("target"); target != nil {
				switch value = target.Get("name"); value {
				case "org.qemu.guest_agent.0", "com.redhat.spice.0":
					continue
				}
			}
		case "redirdev":
			if e.Get("type") == "spicevmc" {
				continue
			}
		case "watchdog":
			if value == "itco" {
				continue // in the chip set
			}
		case "rng":
			if e.Child("backend").TextOf() == "/dev/urandom" {
				continue
			}
		case "hostdev":
			reason = "a device of the host is never carried"
			if kind := e.Get("type"); kind != "" {
				value = kind
			}
		case "filesystem":
			reason = "a folder of the host is never carried"
		}
		r.unread(fmt.Sprintf("devices/%s[%d]", name, i), value, reason)
	}
}

// local says whether a screen is shown on its host only, on any port, without a
// password.
func local(graphics *xmltree.Element) bool {
	if graphics.Get("passwd") != "" || graphics.Get("autoport") == "no" || graphics.Get("socket") != "" {
		return false
	}
	all := graphics.All("listen")
	if len(all) == 0 {
		all = append(all, graphics)
	}
	for _, l := range all {
		address := l.Get("listen") + l.Get("address")
		if address != "" && address != "127.0.0.1" || l.Get("type") == "network" || l.Get("type") == "socket" {
			return false
		}
	}
	return true
}

// A boot is a <boot order> of a device.
type boot struct {
	order  int
	kind   machine.BootDevice
	number int // of the device, among those of its kind
}

func (r *reader) boot(device *xmltree.Element, kind machine.BootDevice, i int) error {
	e := device.Child("boot")
	if e == nil || e.Get("order") == "" {
		return nil
	}
	order, err := number(e, "order", e.Get("order"), 1<<30)
	if err != nil {
		return err
	}
	for _, b := range r.boots {
		if b.order == order {
			return malformed(e, "order %d is that of another device", order)
		}
	}
	r.boots = append(r.boots, boot{order, kind, i})
	return nil
}

// bootOrder makes kinds of the devices that are to be tried in order.
func (r *reader) bootOrder() error {
	if len(r.boots) == 0 {
		return nil
	}
	if len(r.m.BootOrder) > 0 {
		return malformed(r.top["os"], "<boot dev> beside the <boot order> of a device")
	}
	slices.SortFunc(r.boots, func(a, b boot) int { return cmp.Compare(a.order, b.order) })
	for _, b := range r.boots {
		if slices.Contains(r.m.BootOrder, b.kind) {
			continue
		}
		r.m.BootOrder = append(r.m.BootOrder, b.kind)
		if b.number != 0 {
			r.unread("devices/boot", fmt.Sprintf("%s %d", b.kind, b.number), "the first of its kind is tried first")
		}
	}
	return nil
}
