package ovf

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// A field is a value of a machine under its path in the machine's JSON, as
// losses name it: nics[0].type. A list has its length as a field, before those
// of its elements: nics.length.
type field struct {
	path, value string
	zero        bool // it says nothing
}

// fields are all fields of a machine or an envelope, in the order of the struct.
func fields(v any) []field {
	var all []field
	collect(reflect.ValueOf(v), "", &all)
	return all
}

func collect(v reflect.Value, path string, all *[]field) {
	add := func(path, value string, zero bool) { *all = append(*all, field{path, value, zero}) }
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() { // says as much as one to nothing
			v = reflect.New(v.Type().Elem())
		}
		collect(v.Elem(), path, all)
	case reflect.Struct:
		for i := range v.NumField() {
			if name := jsonName(v.Type().Field(i)); name != "" {
				collect(v.Field(i), join(path, name), all)
			}
		}
	case reflect.Slice:
		add(path+".length", strconv.Itoa(v.Len()), v.Len() == 0)
		for i := range v.Len() {
			collect(v.Index(i), fmt.Sprintf("%s[%d]", path, i), all)
		}
	case reflect.String:
		add(path, v.String(), v.IsZero())
	case reflect.Bool:
		add(path, strconv.FormatBool(v.Bool()), v.IsZero())
	case reflect.Int, reflect.Int64:
		add(path, strconv.FormatInt(v.Int(), 10), v.IsZero())
	default:
		panic("a field of a kind that machines do not have: " + path)
	}
}

// jsonName is what a field is called in JSON, "" if it is not there. Envelopes
// are not written as JSON.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case name == "-", f.Name == "Unread", f.Name == "Warnings":
		return ""
	case name == "":
		return strings.ToLower(f.Name)
	}
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// copied returns a copy of v that shares nothing with it, with each string as
// change makes it.
func copied(v reflect.Value, path string, change func(path, s string) string) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			c.Set(copied(v.Elem(), path, change).Addr())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if name := jsonName(v.Type().Field(i)); name != "" {
				c.Field(i).Set(copied(v.Field(i), join(path, name), change))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.Set(reflect.Append(c, copied(v.Index(i), fmt.Sprintf("%s[%d]", path, i), change)))
		}
	case reflect.String:
		c.SetString(change(path, v.String()))
	default:
		c.Set(v)
	}
	return c
}

// differences are the fields that have to be set in a machine that has the
// fields is, so that it has those of want.
func differences(is, want []field) []field {
	has := make(map[string]string, len(is))
	for _, f := range is {
		has[f.path] = f.value
	}
	var all []field
	for _, f := range want {
		if value, ok := has[f.path]; value == f.value || !ok && f.zero {
			continue
		}
		all = append(all, f)
	}
	return all
}

// set sets a field of m. A list that gets longer gets empty elements.
func set(m *machine.Machine, f field) error {
	path, isLength := strings.CutSuffix(f.path, ".length")
	v, ok := lookup(reflect.ValueOf(m).Elem(), path)
	if !ok || isLength != (v.Kind() == reflect.Slice) {
		return fmt.Errorf("a machine has no field %q", f.path)
	}
	switch v.Kind() {
	case reflect.Slice:
		n, err := parseDecimal(f.value)
		if err != nil || n > machine.MaxDisks {
			return fmt.Errorf("%s is %q, not a number up to %d", f.path, f.value, machine.MaxDisks)
		}
		for v.Len() < int(n) {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		}
		v.SetLen(int(n))
	case reflect.String:
		v.SetString(f.value)
	case reflect.Bool:
		if f.value != "true" && f.value != "false" {
			return fmt.Errorf("%s is %q, neither true nor false", f.path, f.value)
		}
		v.SetBool(f.value == "true")
	case reflect.Int, reflect.Int64:
		n, err := parseDecimal(f.value)
		if limit := limits[kind(f.path)]; err != nil || n > limit {
			return fmt.Errorf("%s is %q, not a number up to %d", f.path, f.value, limit)
		}
		v.SetInt(n)
	default: // a struct
		return fmt.Errorf("%q is no single field", f.path)
	}
	return nil
}

// lookup returns what is at a path below v.
func lookup(v reflect.Value, path string) (reflect.Value, bool) {
	for name := range strings.SplitSeq(path, ".") {
		name, index, isElement := strings.Cut(name, "[")
		if v.Kind() != reflect.Struct {
			return v, false
		}
		i := 0
		for ; i < v.NumField(); i++ {
			if jsonName(v.Type().Field(i)) == name && name != "" {
				break
			}
		}
		if i == v.NumField() {
			return v, false
		}
		v = v.Field(i)
		if !isElement {
			continue
		}
		digits, closed := strings.CutSuffix(index, "]")
		n, err := parseDecimal(digits)
		if !closed || err != nil || v.Kind() != reflect.Slice || n >= int64(v.Len()) {
			return v, false
		}
		v = v.Index(int(n))
	}
	return v, true
}

// limits are the largest values of numbers, by kind of field.
var limits = map[string]int64{
	"cpus":               machine.MaxCPUs,
	"coresPerSocket":     machine.MaxCPUs,
	"memory":             machine.MaxMemory,
	"guestOS.cim":        math.MaxUint16,
	"controllers.number": machine.MaxDisks,
	"disks.unit":         machine.MaxDisks,
	"disks.capacity":     machine.MaxCapacity,
	"cdroms.unit":        machine.MaxDisks,
	"display.memory":     machine.MaxMemory,
	"display.monitors":   machine.MaxDisks,
}

// kind is a path without the numbers of elements.
func kind(path string) string {
	for {
		from, to := strings.IndexByte(path, '['), strings.IndexByte(path, ']')
		if from < 0 || to < from {
			return path
		}
		path = path[:from] + path[to+1:]
	}
}
