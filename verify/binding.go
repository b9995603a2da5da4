package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a signature is for: a repository and tags. The signer says it, so that nobody moves a signed artifact to another place, or a tag
// to what was signed for another one, without being told of.

// binds refuses a signature that Bind asks to be for another name, or that does not hold the tag.
func (p Policy) binds(s *Signature) error {
	if p.Bind == "" || p.Bind == BindAny {
		return nil
	}
	switch {
	case s.Name == "":
		return refusef(OtherName, "it names no repository; %s is asked for", p.Bind)
	case s.Name != p.Bind:
		return refusef(OtherName, "it was made for %q; %s is asked for", s.Name, p.Bind)
	case p.holdsTag(s):
		return nil
	case len(s.Tags) == 0:
		return refusef(OtherTag, "it names no tag; %s is asked for", p.Tag)
	default:
		return refusef(OtherTag, "it was made for %s; %s is asked for", tagList(s.Tags), p.Tag)
	}
}

func (p Policy) holdsTag(s *Signature) bool { return p.Tag == "" || slices.Contains(s.Tags, p.Tag) }

// warnings say that the artifact was signed for other names or tags than those it is accessed by: a copy, a swap, a tag that was moved.
// A signature that says nothing about them is not warned about. One that is for just this silences the others.
func (p Policy) warnings(signatures []Signature) (all []string) {
	if p.Bind != "" {
		return nil
	}
	for _, s := range signatures {
		if !s.Counted {
			continue
		}
		if (p.Name == "" || s.Name == p.Name) && p.holdsTag(&s) {
			return nil
		}
		if p.Name != "" && s.Name != "" && s.Name != p.Name {
			all = append(all, fmt.Sprintf("signature %s was made for %s, not for %s", s.Digest, s.Name, p.Name))
		}
		if len(s.Tags) > 0 && !p.holdsTag(&s) {
			all = append(all, fmt.Sprintf("signature %s was made for %s, not for %s", s.Digest, tagList(s.Tags), p.Tag))
		}
	}
	return all
}

// says is what a signature that counts says, in a line.
func (s *Signature) says() string {
	parts := []string{"by key " + s.KeyHint}
	if s.Name != "" {
		parts = append(parts, "for "+s.Name)
	}
	if len(s.Tags) > 0 {
		parts = append(parts, tagList(s.Tags))
	}
	if s.Sequence > 0 {
		sequence := fmt.Sprintf("sequence %d", s.Sequence)
		if !s.Time.IsZero() {
			sequence += " (" + s.Time.Format(time.RFC3339) + ")"
		}
		parts = append(parts, sequence)
	}
	return strings.Join(parts, ", ")
}

// tagList is tags in a sentence. A tag has no characters that do harm.
func tagList(tags []string) string {
	noun := "the tags "
	if len(tags) == 1 {
		noun = "the tag "
	}
	const shown = 10
	if n := len(tags) - shown; n > 0 {
		return fmt.Sprintf("%s%s and %d more", noun, strings.Join(tags[:shown], ", "), n)
	}
	return noun + strings.Join(tags, ", ")
}
