package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// What a registry, or somebody with push rights, can make us read when referrers are listed. A list is only places to look: what is
// beyond a limit is told ([ErrIncomplete]) and takes nothing from what is before it.
const (
	MaxReferrerList    = 8 << 20          // of all pages of the API: 10,000 entries as registries write them have some 5 MiB
	maxReferrerEntries = 1 << 16          // entries of lists, which can be as short as "{}"
	MaxReferrers       = 10_000           // tags of referrers that are asked for, and referrers that are read
	MaxReferrerBytes   = 16 << 20         // of the manifests of referrers that are read
	MaxReferrerTime    = 10 * time.Second // after which no further page or manifest is asked for
	maxListedNotes     = 4 << 10          // annotations of an entry of a list; those that are longer are left out
	ReferrerJobs       = 64               // referrers asked for at a time: thousands in MaxReferrerTime
)

// ReadReferrers fetches every manifest of a list and keeps those that say themselves that they refer to subject. What is larger than its
// share of the limit comes last. One that is listed and not there is left out: lists outlive what is in them. One that is wrong costs
// itself.
func ReadReferrers(ctx context.Context, subject ocispec.Descriptor, list []ocispec.Descriptor,
	fetch func(context.Context, ocispec.Descriptor) ([]byte, error),
) ([]ocispec.Descriptor, error) {
	list = slices.Clone(list)
	const share = MaxReferrerBytes / MaxReferrers
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return cmp.Compare(max(a.Size, share), max(b.Size, share)) })

	var (
		keep  = make([]*ocispec.Descriptor, len(list))
		wrong = make([]error, len(list))
		start = time.Now()
		size  int64
		left  int
	)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(ReferrerJobs)
	for i, desc := range list {
		if wrong[i] = CheckManifest(desc); wrong[i] != nil {
			continue
		}
		if i >= MaxReferrers || desc.Size > MaxReferrerBytes-size || time.Since(start) > MaxReferrerTime {
			left++
			continue
		}
		size += desc.Size
		g.Go(func() error {
			d, err := ReadReferrer(gctx, fetch, subject, desc)
			if IsInvalid(err) {
				wrong[i] = err
				return nil
			}
			keep[i] = d
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, d := range keep {
		if d != nil && IsManifest(d.MediaType) {
			found = append(found, *d)
		}
	}
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	wrong = slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
	switch {
	case len(wrong) > 0:
		return found, Incompletef("%d of the referrers listed cannot be read: %w", len(wrong), wrong[0])
	case left > 0:
		return found, Incompletef("%d referrers more than are looked at", left)
	}
	return found, nil
}

// UniqueReferrers drops what is there twice, and keeps of two the one that says what it is, at the place of the first. Sizes and types
// of one digest differ where a list is wrong about it; which of them is, only fetching tells.
func UniqueReferrers(list []ocispec.Descriptor) []ocispec.Descriptor {
	type id struct {
		digest    digest.Digest
		size      int64
		mediaType string
	}
	at := make(map[id]int, len(list))
	var unique []ocispec.Descriptor
	for _, d := range list {
		i, twice := at[id{d.Digest, d.Size, d.MediaType}]
		switch {
		case !twice:
			at[id{d.Digest, d.Size, d.MediaType}] = len(unique)
			unique = append(unique, d)
		case unique[i].ArtifactType == "":
			unique[i] = d
		}
	}
	return unique
}

// A ReferrerList gathers the entries of lists.
type ReferrerList struct {
	Entries []ocispec.Descriptor
	Left    int // bytes that may still be read

	unreadable int // entries
}

// listedReferrer is an entry of a list, as far as it is of use. Annotations are parsed when they are known to be few.
type listedReferrer struct {
	MediaType    string          `json:"mediaType"`
	ArtifactType string          `json:"artifactType"`
	Digest       digest.Digest   `json:"digest"`
	Size         int64           `json:"size"`
	Annotations  json.RawMessage `json:"annotations"`
}

// Add takes the entries of an image index, and reports whether content is one. It goes through the text entry by entry: an entry that
// cannot be read costs itself, a text that breaks off what is behind the break.
func (l *ReferrerList) Add(content []byte) (isIndex bool, err error) {
	tooLong := len(content) > l.Left
	l.Left -= min(len(content), l.Left)
	dec := json.NewDecoder(bytes.NewReader(content))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false, nil //nolint:nilerr // it is no list, which is the answer
	}
	broken := func(err error) (bool, error) {
		if tooLong {
			err = fmt.Errorf("more than %d bytes", MaxReferrerList)
		}
		return isIndex, Incompletef("the list: %w", err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return broken(err)
		}
		if key != "manifests" {
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return broken(err)
			}
			isIndex = isIndex || key == "mediaType" && string(value) == `"`+ocispec.MediaTypeImageIndex+`"`
			continue
		}
		open, err := dec.Token()
		if err != nil {
			return broken(err)
		}
		if open == nil {
			continue // null
		}
		if open != json.Delim('[') {
			return broken(errors.New("manifests is no array"))
		}
		isIndex = true
		for dec.More() {
			var e listedReferrer
			err := dec.Decode(&e)
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
				l.unreadable++
				continue
			}
			if err != nil {
				return broken(err)
			}
			if len(l.Entries) == maxReferrerEntries {
				return isIndex, Incompletef("more than %d referrers are listed", maxReferrerEntries)
			}
			l.Entries = append(l.Entries, e.descriptor())
		}
		if _, err := dec.Token(); err != nil {
			return broken(err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return broken(err)
	}
	if tooLong {
		return broken(nil)
	}
	return isIndex, nil
}

func (e listedReferrer) descriptor() ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size, ArtifactType: e.ArtifactType}
	if len(e.Annotations) <= maxListedNotes {
		_ = json.Unmarshal(e.Annotations, &d.Annotations) // annotations that are none are no reason to look elsewhere
	}
	return d
}

// Incomplete is an [ErrIncomplete] if there were entries that could not be read.
func (l *ReferrerList) Incomplete() error {
	if l.unreadable == 0 {
		return nil
	}
	return Incompletef("%d entries of the list cannot be read", l.unreadable)
}

// ReferrersTag is the tag of the index in the referrers tag schema.
func ReferrersTag(subject digest.Digest) string { return "sha256-" + subject.Encoded() }

// ReferrerTag is the tag of one referrer. The index of the tag schema loses entries when two writers update it at once; nobody
// writes this tag but for this referrer.
func ReferrerTag(subject, referrer digest.Digest) string {
	return ReferrersTag(subject) + "." + referrer.Encoded()[:16]
}

// ReadReferrer fetches what is listed as a referrer of subject. It returns what the manifest says of itself, nil if it is not there or
// does not refer to subject.
func ReadReferrer(ctx context.Context, fetch func(context.Context, ocispec.Descriptor) ([]byte, error), subject, desc ocispec.Descriptor) (*ocispec.Descriptor, error) {
	content, err := fetch(ctx, desc)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := ParseReferrer(content)
	if err != nil || m.Subject == nil || m.Subject.Digest != subject.Digest {
		return nil, nil //nolint:nilerr // it is no referrer of subject, which is the answer
	}
	desc.MediaType = cmp.Or(m.MediaType, desc.MediaType)
	d := m.Describe(desc)
	return &d, nil
}
