// Package attach gives the drives of a machine places that a product has.
//
// What products take is in the tables of [Target]. A drive stays where the
// machine has it wherever the product has that place. Others move, each of them
// is told, and none takes the place from which the machine starts.
package attach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// A Place is where a drive is.
type Place struct {
	Bus    machine.Bus
	Number int // of the controller, among those of its bus
	Unit   int
}

func (p Place) String() string { return fmt.Sprintf("%s%d:%d", p.Bus, p.Number, p.Unit) }

// words are those for people.
func (p Place) words() string {
	return fmt.Sprintf("%s controller %d, unit %d", busWord(p.Bus), p.Number, p.Unit)
}

// A Controller is one of a machine, as it is written.
type Controller struct {
	machine.Controller        // Model is the one that is written
	Index              int    // in the machine; -1: it was added
	was                int    // Number in the machine
	units              []bool // that are taken
}

// A Drive is a disk or a CD drive. All but Place are as the machine has them.
type Drive struct {
	Field      string // of a loss: disks[0]
	CD         bool
	Controller string // by name
	Bus        machine.Bus
	Unit       int

	Place Place // where Attach put it

	asked   Place
	on      *Controller // of the machine's; nil: none that the target has
	dropped bool        // that is one too many
	why     string      // it is not where the machine has it
}

// wide are the units of PVSCSI that only newer versions of VMware have.
const wide = 16

// Attach returns the controllers that the target takes, those of the machine in
// their order first, and gives each drive its Place. What is not as the machine
// has it is in the losses. It is an error if there are more drives than places.
//
// Have are the controllers of the machine whose model the target has. Disks
// come before CD drives, in the order of the machine: the first is what it
// starts from.
func (t *Target) Attach(have []Controller, drives []*Drive) ([]Controller, []machine.Loss, error) {
	p := plan{Target: t, drives: drives}
	have = slices.Clone(have)
	for i := range have {
		have[i].was, have[i].units = have[i].Number, nil
	}
	p.keep(have)
	var rest []*Drive
	for _, d := range drives {
		if !p.own(d) {
			rest = append(rest, d)
		}
	}
	for _, d := range rest {
		if !p.move(d) {
			return nil, nil, machine.Unsupported("%s: %s has no place for it: it takes %s", d.Field, t.Name, t.most())
		}
	}
	p.startFirst()
	for _, d := range drives {
		p.tell(d)
	}
	kept := make([]Controller, len(p.kept))
	for i, c := range p.kept {
		kept[i] = *c
	}
	return kept, p.losses, nil
}

// A plan is the work of Attach.
type plan struct {
	*Target
	drives []*Drive
	kept   []*Controller // of the machine in its order, then those that were added
	losses []machine.Loss
}

// keep chooses the controllers of the machine that stay: those of the first
// drives, where the target has fewer.
func (p *plan) keep(have []Controller) {
	var order []*Controller
	used := make(map[*Controller]bool)
	for _, d := range p.drives {
		if c := find(have, d); c != nil && !used[c] {
			used[c] = true
			order = append(order, c)
		}
	}
	for i := range have {
		if !used[&have[i]] {
			order = append(order, &have[i])
		}
	}
	lose := func(c *Controller, field, value, format string, args ...any) {
		p.losses = append(p.losses, machine.Loss{Field: fmt.Sprintf("controllers[%d]%s", c.Index, field), Value: value, Reason: fmt.Sprintf(format, args...)})
	}
	var stay, numberless []*Controller
	for _, c := range order {
		row := p.row(c.Type, c.Model)
		switch {
		case p.Any:
		case row == nil:
			lose(c, "", c.Name, "%s takes no %s controllers", p.Name, busWord(c.Type))
			continue
		case !p.numberFree(stay, c.Type, c.Number) && !used[c]:
			lose(c, "", c.Name, "it has the number of another, or none that %s has", p.Name)
			continue
		case p.count(stay, row)+p.count(numberless, row) == row.Controllers:
			lose(c, "", c.Name, "%s", p.limit(row))
			continue
		case !p.numberFree(stay, c.Type, c.Number):
			numberless = append(numberless, c)
			continue
		}
		stay = append(stay, c)
	}
	for _, c := range numberless {
		c.Number = p.nextNumber(stay, c.Type)
		stay = append(stay, c)
		lose(c, ".number", fmt.Sprint(c.was), "it is %d: %s has no such number, or another controller has it", c.Number, p.Name)
	}
	slices.SortFunc(stay, func(a, b *Controller) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortStableFunc(p.losses, func(a, b machine.Loss) int { return cmp.Compare(index(a), index(b)) })
	p.kept = stay

	for _, d := range p.drives {
		d.asked = Place{d.Bus, -1, d.Unit}
		if c := find(have, d); c != nil {
			d.asked = Place{c.Type, c.was, d.Unit}
			d.dropped = !slices.Contains(stay, c)
			d.on = c
		}
	}
}

// find is the controller that a drive names.
func find(have []Controller, d *Drive) *Controller {
	if d.Controller == "" {
		return nil
	}
	for i := range have {
		if have[i].Name == d.Controller && (d.Bus == have[i].Type || d.Bus == "") {
			return &have[i]
		}
	}
	return nil
}

// index is that of a loss of controllers.
func index(l machine.Loss) (n int) {
	_, _ = fmt.Sscanf(l.Field, "controllers[%d]", &n) // which all of them have
	return n
}

// count is how many of the controllers are of a row.
func (p *plan) count(controllers []*Controller, row *Bus) (n int) {
	for _, c := range controllers {
		if p.row(c.Type, c.Model) == row {
			n++
		}
	}
	return n
}

func (p *plan) numberFree(controllers []*Controller, bus machine.Bus, n int) bool {
	numbers := p.numbers(bus)
	return n >= 0 && (numbers == 0 || n < numbers) &&
		!slices.ContainsFunc(controllers, func(c *Controller) bool { return c.Type == bus && c.Number == n })
}

// nextNumber is one for a controller more.
func (p *plan) nextNumber(controllers []*Controller, bus machine.Bus) (n int) {
	if p.Any { // after all others, which may have any
		for _, c := range controllers {
			if c.Type == bus {
				n = max(n, c.Number+1)
			}
		}
		return n
	}
	for !p.numberFree(controllers, bus, n) {
		n++
	}
	return n
}

// own gives a drive the place that the machine has it at.
func (p *plan) own(d *Drive) bool {
	if d.on == nil || d.dropped {
		return false
	}
	if p.Any {
		d.Place = Place{d.on.Type, d.on.Number, d.Unit}
		return true
	}
	return p.take(d, d.on, d.Unit)
}

// take gives a drive a unit of a controller, if that is there and free.
func (p *plan) take(d *Drive, c *Controller, unit int) bool {
	row := p.row(c.Type, c.Model)
	if row == nil || d.CD && row.NoCD || unit < 0 || unit >= row.units(c.Model) || unit == Self && row.Self {
		return false
	}
	if c.units == nil {
		c.units = make([]bool, row.units(c.Model))
	}
	if c.units[unit] {
		return false
	}
	c.units[unit] = true
	d.Place = Place{c.Type, c.Number, unit}
	return true
}

// takeAny gives a drive the first free unit of one of some controllers. Most is
// how many units of each are looked at, 0: all; early: those, too, that are
// before the first disk.
func (p *plan) takeAny(d *Drive, most int, early bool, which func(*Controller) bool) bool {
	for _, c := range p.kept {
		if !which(c) {
			continue
		}
		row := p.row(c.Type, c.Model)
		if row == nil {
			continue
		}
		units := row.units(c.Model)
		if most > 0 {
			units = min(units, most)
		}
		for unit := range units {
			if (early || !p.early(d, Place{c.Type, c.Number, unit})) && p.take(d, c, unit) {
				return true
			}
		}
	}
	return false
}

// early says whether the machine might start from a place of d, and should not.
func (p *plan) early(d *Drive, place Place) bool {
	first := p.first()
	return !d.CD && !p.Ordered && !p.Any && first != nil && first != d && first.Place != (Place{}) && p.before(place, first.Place)
}

// move gives a drive another place than its own: on its controller, or on one of
// the same kind, as the guest has a driver for that; else where the target wants
// such drives. That is not before the first disk if there is room beside it.
func (p *plan) move(d *Drive) bool {
	if p.Any {
		return p.spare(d)
	}
	kind := d.on
	if d.Bus == "" && d.on == nil && !d.CD {
		kind = p.others() // where the machine's other disks are
	}
	if kind != nil {
		own := func(c *Controller) bool { return c == kind }
		same := func(c *Controller) bool { return c.Type == kind.Type && c.Model == kind.Model }
		for _, early := range []bool{false, true} {
			for _, most := range []int{wide, 0} {
				if p.takeAny(d, most, early, own) || p.takeAny(d, most, early, same) {
					return true
				}
			}
		}
	}
	if !p.spare(d) {
		return p.takeAny(d, 0, true, func(*Controller) bool { return true })
	}
	if place := d.Place; p.early(d, place) {
		beside := p.first().Place
		if p.takeAny(d, 0, false, func(c *Controller) bool { return c.Type == beside.Bus && c.Number == beside.Number }) {
			p.leave(place)
		}
	}
	return true
}

// leave gives a place back.
func (p *plan) leave(place Place) {
	for i, c := range p.kept {
		if c.Type == place.Bus && c.Number == place.Number {
			c.units[place.Unit] = false
			if c.Index < 0 && !slices.Contains(c.units, true) {
				p.kept = slices.Delete(p.kept, i, i+1)
			}
			return
		}
	}
}

// spare gives a drive a place where the target wants those that have none.
func (p *plan) spare(d *Drive) bool {
	spares := p.Disks
	switch {
	case d.CD:
		spares = p.CDs
	case d.asked.Bus == "" || d.asked.Bus == machine.Virtio || d.asked.Bus == machine.Xen:
		spares = slices.Concat(p.Paravirtual, p.Disks)
	}
	for _, s := range spares {
		is := func(c *Controller) bool {
			return c.Type == s.Bus && (c.Model == s.Model || s.Bus != machine.SCSI) && (c.Index < 0 || !p.Any)
		}
		for {
			if p.takeAny(d, s.Units, true, is) {
				return true
			}
			row := p.row(s.Bus, s.Model)
			if p.count(p.kept, row) >= row.Controllers && !p.Any {
				break
			}
			n := p.nextNumber(p.kept, s.Bus)
			p.kept = append(p.kept, &Controller{Index: -1, was: n, Controller: machine.Controller{
				Name: fmt.Sprint(s.Bus, n), Type: s.Bus, Model: s.Model, Number: n,
			}})
		}
	}
	return false
}

// others is the controller of the first disk that is on one.
func (p *plan) others() *Controller {
	for _, o := range p.drives {
		if !o.CD && o.on != nil && !o.dropped {
			return o.on
		}
	}
	return nil
}

// first is the disk that the machine starts from.
func (p *plan) first() *Drive {
	if len(p.drives) > 0 && !p.drives[0].CD {
		return p.drives[0]
	}
	return nil
}

// before says whether the firmware looks at a before it looks at b, or may do so.
func (p *plan) before(a, b Place) bool {
	if a.Bus != b.Bus && p.Unsure {
		return true
	}
	return cmp.Or(cmp.Compare(p.rank(a.Bus), p.rank(b.Bus)), cmp.Compare(a.Number, b.Number), cmp.Compare(a.Unit, b.Unit)) < 0
}

// startFirst exchanges the first disk with the one that the firmware would
// start from, if either has moved: what starts is never what was moved.
func (p *plan) startFirst() {
	first := p.first()
	if first == nil || p.Ordered || p.Any {
		return
	}
	starts := first
	for _, d := range p.drives {
		if sure := !p.Unsure || d.Place.Bus == starts.Place.Bus; sure && !d.CD && p.before(d.Place, starts.Place) {
			starts = d
		}
	}
	if starts == first || !first.moved() && !starts.moved() {
		return
	}
	if !first.moved() {
		first.why = fmt.Sprintf("%s starts from that place, and this is the first disk", p.Name)
	}
	if !starts.moved() {
		starts.why = fmt.Sprintf("%s would start from it, and it is not the first disk", p.Name)
	}
	first.Place, starts.Place = starts.Place, first.Place
}

// moved says whether a drive is not where the machine has it.
func (d *Drive) moved() bool { return d.Place != d.asked }

// tell reports a drive that has moved.
func (p *plan) tell(d *Drive) {
	if !d.moved() {
		return
	}
	if d.asked.Bus == "" {
		p.losses = append(p.losses, machine.Loss{Field: d.Field + ".bus", Reason: fmt.Sprintf("it is not said: %s instead", d.Place.Bus)})
		return
	}
	field, value, from := ".bus", string(d.asked.Bus), ""
	if d.on != nil {
		from = " from " + d.asked.words()
		if d.asked.Bus == d.Place.Bus {
			field, value = ".unit", d.asked.String()
		}
	} else if d.asked.Bus == d.Place.Bus {
		from = " from a controller that is not there"
	}
	p.losses = append(p.losses, machine.Loss{Field: d.Field + field, Value: value, Reason: fmt.Sprintf("moved%s to %s: %s", from, d.Place.words(), p.reason(d))})
}

// reason says why a drive is not where the machine has it.
func (p *plan) reason(d *Drive) string {
	kind := "disks"
	if d.CD {
		kind = "CD drives"
	}
	if d.on == nil {
		if p.rank(d.asked.Bus) == len(p.Buses) || d.CD && p.row(d.asked.Bus, "").NoCD {
			return fmt.Sprintf("%s takes no %s on %s", p.Name, kind, busWord(d.asked.Bus))
		}
		return fmt.Sprintf("%s has no such controller", p.Name)
	}
	row := p.row(d.on.Type, d.on.Model)
	switch {
	case row == nil || d.CD && row.NoCD:
		return fmt.Sprintf("%s takes no %s on %s", p.Name, kind, busWord(d.asked.Bus))
	case d.why != "":
		return d.why
	case d.dropped:
		return p.limit(row)
	case d.on.Number != d.on.was:
		return fmt.Sprintf("%s has no such controller", p.Name)
	case d.Unit < 0 || d.Unit >= row.units(d.on.Model) || d.Unit == Self && row.Self:
		return fmt.Sprintf("it takes %s", row.unitWords(d.on.Model))
	}
	return "the unit is taken"
}

// limit says how many controllers the target takes.
func (t *Target) limit(row *Bus) string {
	kind, s := busWord(row.Bus), "s"
	if row.Model != "" {
		kind = string(row.Model)
	}
	if row.Controllers == 1 {
		s = ""
	}
	return fmt.Sprintf("%s takes %s %s controller%s", t.Name, numberWord(row.Controllers), kind, s)
}

// most says what the target takes in all.
func (t *Target) most() string {
	var all []string
	for i := range t.Buses {
		row := &t.Buses[i]
		all = append(all, fmt.Sprintf("%d on %s", row.Controllers*row.drives(row.Model), strings.TrimSpace(busWord(row.Bus)+" "+string(row.Model))))
	}
	return strings.Join(all, ", ")
}

func numberWord(n int) string {
	if words := []string{"no", "one", "two", "three", "four"}; n < len(words) {
		return words[n]
	}
	return fmt.Sprint(n)
}

// busWord is how people write a bus.
func busWord(bus machine.Bus) string {
	switch bus {
	case machine.IDE, machine.SATA, machine.SCSI, machine.USB:
		return strings.ToUpper(string(bus))
	case machine.NVMe:
		return "NVMe"
	}
	return string(bus)
}
