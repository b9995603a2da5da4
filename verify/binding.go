package verify

import "fmt"

// binds refuses a signature that Bind asks to be for another name.
func (p Policy) binds(s *Signature) error {
	switch {
	case p.Bind == "" || p.Bind == BindAny || p.Bind == s.Name:
		return nil
	case s.Name == "":
		return refusef(OtherName, "it names no repository; %s is asked for", p.Bind)
	default:
		return refusef(OtherName, "it was made for %q; %s is asked for", s.Name, p.Bind)
	}
}

// warnings say that the artifact was signed for other names than the one it is accessed by: a copy, or a swap.
func (p Policy) warnings(signatures []Signature) (all []string) {
	if p.Bind != "" || p.Name == "" {
		return nil
	}
	for _, s := range signatures {
		switch {
		case !s.Counted || s.Name == "":
		case s.Name == p.Name:
			return nil
		default:
			all = append(all, fmt.Sprintf("signature %s was made for %s, not for %s", s.Digest, s.Name, p.Name))
		}
	}
	return all
}
