package main

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
)

// warnPublished warns of what a machine's description has that everybody who
// can pull is going to have: secrets among the defaults of properties, and
// files that hold keys. It never says a value.
func warnPublished(g *globals, e *machine.Envelope) {
	warnProperties(g, "", e.Properties)
	for _, m := range e.Machines {
		where := ""
		if len(e.Machines) > 1 {
			where = " of machine " + cmp.Or(m.ID, m.Name)
		}
		warnProperties(g, where, m.Properties)
		switch {
		case m.NVRAM != "" && m.TPM != "":
			g.stderr.warn("%s%s is published: the firmware's variables can hold keys, and so can the state of the TPM", m.NVRAM, where)
		case m.NVRAM != "":
			g.stderr.warn("%s%s is published: the firmware's variables can hold keys", m.NVRAM, where)
		}
	}
}

// sayAlong names the files of the host, or of an archive, that are published as
// they are because a descriptor names them: all of them, or one would hide behind
// many others. Of a firmware's variables [warnPublished] tells.
func sayAlong(g *globals, path string, files []appliance.File) {
	var names []string
	for _, f := range files {
		if f.Role == appliance.RoleFile || f.Role == appliance.RoleCD {
			names = append(names, f.Name)
		}
	}
	if len(names) > 0 {
		g.say("%s: these files go along, and are published as they are: %s", path, strings.Join(names, ", "))
	}
}

func warnProperties(g *globals, where string, properties []machine.Property) {
	for _, p := range properties {
		if what := secretIn(p); what != "" {
			g.stderr.warn("the default of property %s%s is published: it looks like %s", propertyName(p), where, what)
		}
	}
}

// propertyName is how guests see the key of a property.
func propertyName(p machine.Property) string {
	name := p.Key
	if p.Class != "" {
		name = p.Class + "." + name
	}
	if p.Instance != "" {
		name += "." + p.Instance
	}
	return name
}

var (
	passwordNames = regexp.MustCompile(`(?i)passw(or)?d|passphrase|secret|token|(^|[^a-z])pwd?([^a-z]|$)`)
	keyNames      = regexp.MustCompile(`(?i)(private|secret|api|access|ssh|host)[ ._-]*key`)
	licenceNames  = regexp.MustCompile(`(?i)(product|licen[cs]e|activation|serial)[ ._-]*(key|number|code)`)
	publicNames   = regexp.MustCompile(`(?i)public|authorized`)
)

// secretIn says what the value of a property looks like that nobody should
// see, "" if it does not.
func secretIn(p machine.Property) string {
	name := p.Key + " " + p.Label
	switch {
	case p.Value == "":
		return ""
	case strings.Contains(p.Value, "PRIVATE KEY-----"):
		return "a private key"
	case p.Password:
		return "a password"
	case !isText(p):
		return ""
	case keyNames.MatchString(name) && !publicNames.MatchString(name):
		return "a private key"
	case passwordNames.MatchString(name):
		return "a password"
	case licenceNames.MatchString(name):
		return "a product key"
	}
	return ""
}

// isText says whether the value can be a secret: whether passwords are allowed,
// or for how many days, is none.
func isText(p machine.Property) bool {
	return (p.Type == "" || strings.EqualFold(p.Type, "string")) && !strings.EqualFold(p.Value, "true") && !strings.EqualFold(p.Value, "false")
}
