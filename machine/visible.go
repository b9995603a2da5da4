package machine

import "unicode"

// Visible says whether r is a character that people see, or a space between
// such. Texts that people read have no others: control characters, C1 among
// them, are obeyed by terminals; marks of direction make a text look like
// another one; invisible characters hide in it; what has no meaning yet may get
// one of these.
func Visible(r rune) bool {
	switch {
	case r == '\uFE0E', r == '\uFE0F': // how an emoji looks
		return true
	case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), unicode.Is(unicode.Variation_Selector, r):
		return false // letters and marks by their class: fillers, joiners, selectors
	}
	return unicode.IsGraphic(r)
}
