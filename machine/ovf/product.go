package ovf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// propertyTypes are those of paragraph 9.5.1, table 6, and what ovftool and
// vSphere write for real32 and their own.
var propertyTypes = []string{
	"uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64", "sint64",
	"string", "boolean", "real32", "real64",
	"int", "real", "password", "ip", "expression",
}

// uniqueProducts checks that the product sections of e differ in class or
// instance, without which its properties have no names, paragraph 9.5.
func (p *parser) uniqueProducts(e *xmltree.Element) error {
	if p.ovirt { // has one for each version of a program that is installed
		return nil
	}
	type name struct{ class, instance string }
	seen := make(map[name]bool)
	for _, c := range e.All("ProductSection") {
		n := name{p.attr(c, "class"), p.attr(c, "instance")}
		if seen[n] && n != (name{}) { // two without a name are not rare: their keys must differ
			return malformedAt(c, "two ProductSections of class %q and instance %q (9.5)", n.class, n.instance)
		}
		seen[n] = true
	}
	return nil
}

// productSection reads a ProductSection, paragraph 9.5.
func (p *parser) productSection(e *xmltree.Element, unread *[]machine.Loss) (machine.Product, []machine.Property, error) {
	product := machine.Product{
		Name:        p.text(e.Child("Product")),
		Vendor:      p.text(e.Child("Vendor")),
		Version:     p.text(e.Child("Version")),
		FullVersion: p.text(e.Child("FullVersion")),
		URL:         p.text(e.Child("ProductUrl")),
		VendorURL:   p.text(e.Child("VendorUrl")),
		AppURL:      p.text(e.Child("AppUrl")),
	}
	if ok, err := p.understood(e, unread, "Product", "Vendor", "Version", "FullVersion", "ProductUrl", "VendorUrl", "AppUrl", "Icon", "Category", "Property"); err != nil || !ok {
		return machine.Product{}, nil, err
	}
	var (
		properties []machine.Property
		category   string // of all properties that follow it
		keys       = make(map[string]machine.Property)
	)
	for _, c := range e.Children {
		switch {
		case c.Name.Space != p.ns:
		case c.Name.Local == "Category":
			category = p.text(c)
		case c.Name.Local == "Property":
			property, err := p.property(c)
			if err != nil {
				return machine.Product{}, nil, err
			}
			if first, twice := keys[property.Key]; twice {
				if property.Type != first.Type || property.Value != first.Value {
					return machine.Product{}, nil, malformedAt(c, "a second, different property %q (9.5.1)", property.Key)
				}
				continue // whoever sets it sets both
			}
			if len(properties) == machine.MaxDisks {
				return machine.Product{}, nil, malformedAt(c, "more than %d properties", machine.MaxDisks)
			}
			keys[property.Key] = property
			property.Class, property.Instance, property.Category = p.attr(e, "class"), p.attr(e, "instance"), category
			properties = append(properties, property)
		}
	}
	return product, properties, nil
}

// property reads a Property, paragraph 9.5.1.
func (p *parser) property(e *xmltree.Element) (machine.Property, error) {
	q, _ := e.Attr(namespaceVMware, "qualifiers")
	property := machine.Property{
		Key:              p.attr(e, "key"),
		Type:             p.attr(e, "type"),
		Value:            p.value(e),
		Qualifiers:       p.attr(e, "qualifiers"),
		Label:            p.text(e.Child("Label")),
		Description:      p.text(e.Child("Description")),
		UserConfigurable: isTrue(p.attr(e, "userConfigurable")),
		Password:         isTrue(p.attr(e, "password")),
	}
	if property.Qualifiers == "" {
		property.Qualifiers = q
	}
	if property.Key == "" {
		return machine.Property{}, malformedAt(e, "a property without ovf:key (9.5.1)")
	}
	if !slices.Contains(propertyTypes, property.Type) {
		return machine.Property{}, malformedAt(e, "property %q: ovf:type %q is none (9.5.1)", property.Key, property.Type)
	}
	if property.Type == "password" {
		property.Password = true
	}
	return property, nil
}

// value returns the default of a property: that of the configuration, else its
// own.
func (p *parser) value(e *xmltree.Element) string {
	own, _ := e.Attr(p.ns, "value") // as it is, without attr: spaces count
	if own == "" {
		own = e.Get("value")
	}
	for _, c := range e.All("Value") {
		if ofConfig, is := p.configured(c); is {
			v, _ := c.Attr(p.ns, "value")
			if ofConfig {
				return v
			}
			own = v
		}
	}
	return own
}

// defaultOf returns the default of a property that the capacity of a disk is.
// Paragraph 9.1 does not say of which product section; a key that two have is
// none's.
func (p *parser) defaultOf(root *xmltree.Element, key string) (value string, ok bool) {
	if p.defaults == nil {
		p.defaults = make(map[string]string)
		twice := make(map[string]bool)
		p.gatherDefaults(root, twice)
		for name := range twice {
			delete(p.defaults, name)
		}
	}
	value, ok = p.defaults[key]
	return value, ok
}

func (p *parser) gatherDefaults(e *xmltree.Element, twice map[string]bool) {
	for _, c := range e.Children {
		switch {
		case c.Name.Space != p.ns:
		case c.Name.Local == "VirtualSystem", c.Name.Local == "VirtualSystemCollection":
			p.gatherDefaults(c, twice)
		case c.Name.Local == "ProductSection":
			for _, property := range c.All("Property") {
				key := p.attr(property, "key")
				names := []string{key}
				if class, instance := p.attr(c, "class"), p.attr(c, "instance"); class != "" || instance != "" {
					names = append(names, strings.Trim(class+"."+key+"."+instance, "."))
				}
				for _, name := range names {
					if _, ok := p.defaults[name]; ok {
						twice[name] = true
					}
					p.defaults[name] = p.value(property)
				}
			}
		}
	}
}

func isTrue(s string) bool { return strings.EqualFold(s, "true") || s == "1" }

// collectionProduct reads the product of a collection, or of the envelope.
func (p *parser) collectionProduct(e *xmltree.Element) error {
	product, properties, err := p.productSection(e, &p.env.Unread)
	if err != nil {
		return err
	}
	if product != (machine.Product{}) {
		if p.env.Product != nil {
			p.env.Unread = append(p.env.Unread, anotherProduct(product))
		} else {
			p.env.Product = &product
		}
	}
	p.env.Properties = append(p.env.Properties, properties...)
	return nil
}

func anotherProduct(product machine.Product) machine.Loss {
	return machine.Loss{Field: "ProductSection", Value: fmt.Sprint(product.Name, " ", product.Version), Reason: "of several products the first is kept, and the properties of all"}
}

func (p *parser) collectionEULA(e *xmltree.Element) error {
	text, err := p.license(e, &p.env.Unread)
	if text != "" {
		p.env.EULAs = append(p.env.EULAs, text)
	}
	return err
}

// license reads an EulaSection, paragraph 9.6: its text in the envelope's
// language, else the first.
func (p *parser) license(e *xmltree.Element, unread *[]machine.Loss) (string, error) {
	if ok, err := p.understood(e, unread, "License"); err != nil || !ok {
		return "", err
	}
	return p.localized(e, "License"), nil
}

// localized is the text of the child element of that name in the envelope's
// language, else of the first.
func (p *parser) localized(e *xmltree.Element, local string) string {
	for _, c := range e.All(local) {
		if l := lang(c); l == "" || strings.EqualFold(l, p.lang) {
			return p.text(c)
		}
	}
	return p.text(e.Child(local))
}

// product reads a ProductSection of a machine.
func (s *system) product(e *xmltree.Element) error {
	product, properties, err := s.productSection(e, &s.m.Unread)
	if err != nil {
		return err
	}
	if product != (machine.Product{}) {
		if s.m.Product == (machine.Product{}) {
			s.m.Product = product
		} else {
			s.m.Unread = append(s.m.Unread, anotherProduct(product))
		}
	}
	s.m.Properties = append(s.m.Properties, properties...)
	return nil
}

// eula reads an EulaSection of a machine.
func (s *system) eula(e *xmltree.Element) error {
	text, err := s.license(e, &s.m.Unread)
	if text != "" {
		s.m.EULAs = append(s.m.EULAs, text)
	}
	return err
}

// annotation reads an AnnotationSection, paragraph 9.4.
func (s *system) annotation(e *xmltree.Element) error {
	if ok, err := s.understood(e, &s.m.Unread, "Annotation"); err != nil || !ok {
		return err
	}
	if text := s.localized(e, "Annotation"); text != "" {
		s.notes = append(s.notes, text)
	}
	return nil
}

// operatingSystem reads an OperatingSystemSection, paragraph 9.9.
func (s *system) operatingSystem(e *xmltree.Element) error {
	if ok, err := s.understood(e, &s.m.Unread, "Description"); err != nil || !ok {
		return err
	}
	if err := s.info(e); err != nil {
		return err
	}
	g := machine.GuestOS{Version: s.attr(e, "version"), Description: s.text(e.Child("Description"))}
	if id := s.attr(e, "id"); id != "" && s.ns != namespace1+"/" { // with oVirt, of the machine
		n, err := parseDecimal(strings.TrimPrefix(id, "-"))
		if err != nil || n > 1<<16 {
			return malformedAt(e, "OperatingSystemSection: ovf:id %q is not a number of CIM's (9.9)", id)
		}
		if n > 0 && id[0] == '-' { // vCenter's appliance has -100
			s.lose("OperatingSystemSection", id, "ovf:id is not a number of CIM's")
			n = 0
		}
		g.CIM = int(n)
	}
	g.VMware, _ = e.Attr(namespaceVMware, "osType")
	for _, c := range e.Children {
		if c.Name.Space == namespaceVirtualBox && c.Name.Local == "OSType" {
			g.VirtualBox = c.TextOf()
		}
	}
	s.m.GuestOS = g
	return nil
}
