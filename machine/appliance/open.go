package appliance

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/davit-oci/davit/internal/beneath"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/libvirt"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/machine/vbox"
	"github.com/davit-oci/davit/machine/vmx"
)

// Open opens the appliance at path: a file, or a folder that holds one OVF. What
// a file is its content says; its name has to fit where the guest of a raw disk
// could have written that content.
//
// Errors are [ErrNotMachine] for what describes no machine, for which only the
// beginning of the file was read; [ErrNoOVF] for a folder; [ErrMissing]; [ErrDigest] for an OVF or a
// signature that is not right; [machine.ErrMalformed] and
// [machine.ErrUnsupported], and those of [os.Open].
func Open(ctx context.Context, path string, o Options) (*Appliance, error) {
	a := &Appliance{options: o}
	if err := a.open(ctx, path); err != nil {
		a.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return a, nil
}

func (a *Appliance) open(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return reason(err)
	}
	if info.IsDir() {
		name, err := findOVF(path)
		if err != nil {
			return err
		}
		path = filepath.Join(path, name)
	} else if !info.Mode().IsRegular() {
		return ErrNotMachine // and a pipe would keep us waiting
	}
	// Its files are beside it, not beside a link to it.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	f, err := os.Open(real)
	if err != nil {
		return reason(err)
	}
	a.closeLater(f.Close)
	if info, err = f.Stat(); err != nil {
		return err
	}
	a.source = &fileSection{f, info.Size()}
	if a.Kind, err = detect(f, info.Size(), path); err != nil {
		return err
	}
	switch a.Kind {
	case OVA:
		return a.openOVA(ctx)
	case OVF:
		return a.openFolder(ctx, filepath.Dir(real), filepath.Base(real))
	}
	data, err := readAll(ctx, a.source, machine.MaxDescriptor)
	if err != nil {
		return err
	}
	a.Descriptor = File{filepath.Base(real), RoleDescriptor, bytes.NewReader(data)}
	switch a.Kind {
	case VMX:
		a.Envelope, err = vmx.Parse(data)
	case Libvirt:
		a.Envelope, err = libvirt.Parse(data)
	case VirtualBox:
		a.Envelope, err = vbox.Parse(data)
	}
	if err != nil || a.options.DescriptorOnly {
		return err
	}
	return a.openBeside(real, a.options)
}

// openOVA opens the package in a tar archive.
func (a *Appliance) openOVA(ctx context.Context) error {
	members, err := readTar(ctx, a.source, a.source.Size())
	if err != nil {
		return err
	}
	descriptor, err := onlyOVF(members)
	if err != nil {
		return err
	}
	if a.folder, descriptor = path.Split(descriptor); a.folder != "" {
		if err := relativeTo(a.folder, members); err != nil {
			return err
		}
	}
	a.archive = members
	names := make([]string, len(members))
	index := make(map[string]Section)
	for i, m := range members {
		names[i], index[m.name] = m.name, m.Section
	}
	a.lookup = func(name string) (Section, error) {
		if s, ok := index[name]; ok {
			return s, nil
		}
		return nil, fs.ErrNotExist
	}
	a.similar = func(name string) (similar []string) {
		for _, other := range names {
			if strings.EqualFold(other, name) {
				similar = append(similar, other)
			}
		}
		return similar
	}
	manifest, err := companion(names, descriptor, ".mf", true)
	if err != nil {
		return err
	}
	certificate, err := companion(names, descriptor, ".cert", true)
	if err != nil {
		return err
	}
	return a.openPackage(ctx, descriptor, manifest, certificate, names)
}

// onlyOVF is the name of the OVF of an archive.
func onlyOVF(members []member) (name string, err error) {
	for _, m := range members {
		if !isOVF(m.name) {
			continue
		}
		if name != "" {
			return "", machine.Malformed("there are two OVFs in it: %s and %s", name, m.name)
		}
		name = m.name
	}
	if name == "" {
		return "", machine.Malformed("there is no .ovf in it")
	}
	return name, nil
}

// relativeTo calls members as seen from the folder of the archive that the OVF
// lies in: that is where its references begin (DSP0243, 7.1), as in an archive
// that was made by "tar cf vm.ova vm". What lies elsewhere keeps its name, if no
// other gets that now.
func relativeTo(folder string, members []member) error {
	known := make(map[string]bool)
	for i, m := range members {
		name, _ := strings.CutPrefix(m.name, folder)
		if lower := strings.ToLower(name); known[lower] {
			return machine.Malformed("%q is in the OVF's folder and outside of it", name)
		} else {
			known[lower] = true
		}
		members[i].name = name
	}
	return nil
}

// openFolder opens the package whose OVF lies in dir.
func (a *Appliance) openFolder(ctx context.Context, dir, descriptor string) error {
	folder, err := openTree(dir, false)
	if err != nil {
		return err
	}
	a.closeLater(folder.root.Close)
	allowed := tree{}
	if a.options.BackingDir != "" {
		if allowed, err = openTree(a.options.BackingDir, true); err != nil {
			return err
		}
		a.closeLater(allowed.root.Close)
	}
	a.lookup = func(name string) (Section, error) {
		local := filepath.FromSlash(name)
		s, err := openIn(folder.root, local, name == descriptor) // which the user has named
		if errors.Is(err, beneath.ErrHidden) {
			err = fmt.Errorf("%w: %w", ErrHidden, err)
			if in := allowed.local(filepath.Join(folder.real(), local)); len(in) > 0 {
				s, err = openIn(allowed.root, in[0], true)
			}
		}
		if err != nil {
			return nil, reason(err)
		}
		a.closeLater(s.Close)
		return s, nil
	}
	a.similar, a.onHost = folder.similar, true
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	// A folder may hold several packages.
	alone := 0
	for _, name := range names {
		if isOVF(name) {
			alone++
		}
	}
	manifest, err := companion(names, descriptor, ".mf", alone == 1)
	if err != nil {
		return err
	}
	certificate, err := companion(names, descriptor, ".cert", alone == 1)
	if err != nil {
		return err
	}
	return a.openPackage(ctx, descriptor, manifest, certificate, nil)
}

// companion is the manifest or the certificate of a package: the file that is
// called as the descriptor is, but for its extension. If it is the only one of
// its kind it may have another name: people rename the OVF.
func companion(names []string, descriptor, ext string, alone bool) (string, error) {
	stem := descriptor[:len(descriptor)-len(filepath.Ext(descriptor))]
	var others []string
	for _, name := range names {
		switch {
		case !hasExtension(name, ext) || isAppleDouble(name):
		case name[:len(name)-len(ext)] == stem:
			return name, nil
		case strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], "."): // no part of the package
		default:
			others = append(others, name)
		}
	}
	if !alone || len(others) == 0 {
		return "", nil
	}
	if len(others) > 1 {
		return "", machine.Malformed("there are %d %s files, and none is called %s", len(others), ext, stem+ext)
	}
	return others[0], nil
}

// openPackage opens the package of an OVF: its manifest and certificate first,
// so that the OVF is known to be right before it is read. All are the names of
// an archive's members, nil for a folder, of which the package is what the OVF
// and the manifest name.
func (a *Appliance) openPackage(ctx context.Context, descriptor, manifest, certificate string, all []string) error {
	a.members, a.hashing = make(map[string]Section), newHashing()
	if err := a.readManifest(ctx, manifest, certificate); err != nil {
		return err
	}
	s, err := a.member(descriptor)
	if err != nil {
		return fmt.Errorf("opening %s: %w", descriptor, err)
	}
	a.Descriptor = File{descriptor, RoleDescriptor, s}
	if a.OVF, err = readAll(ctx, s, machine.MaxDescriptor); err != nil {
		return fmt.Errorf("reading %s: %w", descriptor, err)
	}
	if err := a.checkDescriptor(ctx); err != nil {
		return err
	}
	if a.Envelope, err = ovf.Parse(a.OVF); err != nil {
		return fmt.Errorf("%s: %w", descriptor, err)
	}
	if a.options.DescriptorOnly {
		return nil
	}
	if err := a.findFiles(all); err != nil {
		return err
	}
	return a.refuse(nil)
}

// readManifest reads the manifest and checks its signature.
func (a *Appliance) readManifest(ctx context.Context, manifest, certificate string) error {
	if manifest == "" {
		if certificate != "" {
			return a.refuse(machine.Malformed("%s signs a manifest, and there is none", certificate))
		}
		return nil
	}
	a.report.Manifest, a.certificate = manifest, certificate
	data, err := a.readSmall(ctx, manifest, RoleManifest)
	if err != nil {
		return err
	}
	digests, err := parseManifest(data)
	if err != nil {
		if err = a.refuse(fmt.Errorf("%s: %w", manifest, err)); err != nil {
			return err
		}
	}
	for _, d := range digests {
		if err := a.list(d); err != nil {
			return err
		}
	}
	if certificate == "" {
		return nil
	}
	cert, err := a.readSmall(ctx, certificate, RoleCertificate)
	if err != nil {
		return err
	}
	s, err := parseCertificate(cert)
	if err != nil {
		return a.refuse(fmt.Errorf("%s: %w", certificate, err))
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	a.report.Certificate = s.report(certificate, roots, time.Now())
	if err := s.check(data); err != nil {
		if !errors.Is(err, machine.ErrUnsupported) {
			err = fmt.Errorf("%w: %s, signed in %s: %w", ErrDigest, manifest, certificate, err)
		}
		return a.refuse(err)
	}
	a.report.Certificate.SignedOK = true
	return nil
}

// readSmall reads a manifest or a certificate, which travels with the package.
func (a *Appliance) readSmall(ctx context.Context, name string, role Role) ([]byte, error) {
	s, err := a.lookup(name)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	data, err := readAll(ctx, s, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	a.signing = append(a.signing, File{name, role, bytes.NewReader(data)})
	return data, nil
}

// refuse notes why a package is not what it was, and returns the first reason
// unless the user takes it as it is.
func (a *Appliance) refuse(err error) error {
	if err != nil {
		a.wrong = append(a.wrong, err)
	}
	if len(a.wrong) == 0 || a.options.Unverified {
		return nil
	}
	return a.wrong[0]
}

// list opens a file that the manifest names, to be hashed as it is read.
func (a *Appliance) list(d digest) error {
	l := &listed{digest: d}
	name, s, err := a.find(d.name)
	switch {
	case errors.Is(err, ErrMissing):
		a.note(l)
		if a.options.DescriptorOnly {
			return nil
		}
		return a.refuse(wrongDigest("%s, which %s names, is not in the package", d.name, a.report.Manifest))
	case err != nil:
		a.note(l)
		return a.refuse(fmt.Errorf("%s: %w", a.report.Manifest, err))
	case name == a.report.Manifest || name == a.certificate:
		// Made by "sha256sum * >x.mf": it was empty then. No file can hold its own digest,
		// and the signature over the manifest comes after it. DSP0243 has neither in it.
		a.warn("%s names %s, which it cannot vouch for: the line is ignored", a.report.Manifest, name)
		return nil
	}
	l.name = name
	if file, again := s.(*hashedSection); again {
		if slices.ContainsFunc(a.listed, func(o *listed) bool { return o.file == file && o.algorithm == d.algorithm }) {
			return a.refuse(machine.Malformed("%s: two lines for %q", a.report.Manifest, name))
		}
		l.file = file
	} else {
		l.file = a.hashing.add(s)
		a.members[name] = l.file
	}
	l.sum = l.file.also(algorithms[d.algorithm]())
	a.note(l)
	return nil
}

// note keeps a line of the manifest.
func (a *Appliance) note(l *listed) {
	a.listed = append(a.listed, l)
	if !slices.Contains(a.report.Algorithms, l.algorithm) {
		a.report.Algorithms = append(a.report.Algorithms, l.algorithm)
	}
}

// checkDescriptor compares the OVF with the manifest, now that it was read.
func (a *Appliance) checkDescriptor(ctx context.Context) error {
	for _, l := range a.listed {
		if l.name == a.Descriptor.Name && l.file != nil {
			if _, err := l.check(ctx, a.report.Manifest); err != nil {
				if err = a.refuse(err); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// member opens a file of the package.
func (a *Appliance) member(name string) (Section, error) {
	if s, ok := a.members[name]; ok {
		return s, nil
	}
	if len(a.members) == maxMembers {
		return nil, machine.Malformed("more than %d files", maxMembers)
	}
	s, err := a.lookup(name)
	if err == nil {
		a.members[name] = s
	}
	return s, err
}

// Names are those that a file can have in a package to which its OVF refers so:
// the reference, or what it says as a URI, with %20 for a space. The first that
// is there is meant.
func Names(ref string) (names []string) {
	refs := []string{ref}
	if decoded, err := url.PathUnescape(ref); err == nil && decoded != ref {
		refs = append(refs, decoded)
	}
	for _, r := range refs {
		if name, err := memberName(r); err == nil && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// find opens the file that a reference means. Where systems tell no case apart,
// names that differ in it are one: so if no file has the name, the only one that
// has it but for that is taken, and told.
func (a *Appliance) find(ref string) (string, Section, error) {
	names := Names(ref)
	for _, name := range slices.Clone(names) { // or as it is called in the archive
		if rest, in := strings.CutPrefix(name, a.folder); in && a.folder != "" && rest != "" {
			names = append(names, rest)
		}
	}
	for _, name := range names {
		s, err := a.member(name)
		if err == nil {
			return name, s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("opening %q: %w", ref, err)
		}
	}
	for _, name := range names {
		similar := a.similar(name)
		if len(similar) > 1 {
			return "", nil, fmt.Errorf("%w: %q, which %d files are called but for the case of letters", ErrMissing, ref, len(similar))
		}
		if len(similar) == 0 {
			continue
		}
		s, err := a.member(similar[0])
		if err != nil {
			return "", nil, fmt.Errorf("opening %q: %w", similar[0], err)
		}
		a.warn("%q is not in the package: %q is taken for it", ref, similar[0])
		return similar[0], s, nil
	}
	if scheme, _, ok := strings.Cut(ref, ":"); ok && len(scheme) > 1 && !strings.ContainsAny(scheme, "/.") {
		return "", nil, machine.Unsupported("%q is not in the package: download it first, and make the OVF name the file", ref)
	}
	if name, err := memberName(ref); err != nil || name == "" {
		return "", nil, machine.Malformed("%q is no name of a file in the package", ref)
	}
	return "", nil, fmt.Errorf("%w: %q", ErrMissing, ref)
}

// warn notes what is taken though it is not as it should be, once.
func (a *Appliance) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
}

// findFiles opens the files that the OVF names. Those of the manifest and of the
// archive, whose names are all, belong to the package as well.
func (a *Appliance) findFiles(all []string) error {
	var (
		uses    = fileUses(a.Envelope)
		roles   = make(map[string]Role)
		packed  = make(map[string]string) // by what files are compressed
		renamed = make(map[string]string)
		part    = make(map[string]bool) // of a file that was cut, which was looked at in one piece
		whole   = make(map[string]bool)
		files   []machine.File
		order   []string
	)
	a.chunks = make(map[string]*parts)
	for _, f := range a.Envelope.Files {
		names, err := a.findParts(f)
		use := uses[f.Name]
		if errors.Is(err, ErrMissing) && use == "" {
			a.lose(f.Name, "it is not in the package, and no disk and no drive has it")
			continue
		}
		if err != nil {
			return fmt.Errorf("a file of %s: %w", a.Descriptor.Name, err)
		}
		for _, name := range names {
			if roles[name] != RoleDisk {
				roles[name] = use
			}
		}
		order = append(order, names...)
		if f.ChunkSize != 0 {
			if a.onHost {
				if err := checkRole(use, a.chunks[f.Name], f.Name, f.Compression); err != nil {
					return fmt.Errorf("%q: %w", f.Name, err)
				}
			}
			for _, name := range names {
				part[name] = true
			}
		} else {
			whole[names[0]] = true
			renamed[f.Name] = names[0]
			f.Name = names[0]
			packed[f.Name] = f.Compression
			a.compareSize(f)
		}
		files = append(files, f)
	}
	a.Envelope.Files = files
	renameFiles(a.Envelope, renamed)

	signed := make(map[string]bool)
	for _, l := range a.listed {
		if l.file != nil {
			order = append(order, l.name)
			signed[l.name] = true
		}
	}
	roles[a.Descriptor.Name] = RoleDescriptor
	for _, f := range a.signing {
		roles[f.Name] = f.Role
	}
	known, titles := make(map[string]bool), make(map[string]bool)
	for _, name := range slices.Concat([]string{a.Descriptor.Name}, order, all) {
		role := roles[name]
		if known[name] || role == RoleManifest || role == RoleCertificate {
			continue
		}
		known[name] = true
		if a.report.Manifest != "" && !signed[name] {
			a.report.Unlisted = append(a.report.Unlisted, name)
		}
		if role == RoleDescriptor || role == RoleDisk {
			continue
		}
		if err := checkTitle(name); err != nil {
			return machine.Unsupported("%w", err)
		}
		if lower := strings.ToLower(name); titles[lower] {
			return machine.Malformed("two files are called %q", name)
		} else {
			titles[lower] = true
		}
		s, err := a.member(name)
		if err != nil {
			return fmt.Errorf("opening %q: %w", name, err)
		}
		if role == "" {
			role = RoleFile
			if hasExtension(name, ".nvram") && (!a.onHost || checkNVRAM(s) == nil) {
				role = RoleNVRAM
			}
		}
		if a.onHost && (whole[name] || !part[name]) {
			if err := checkRole(role, s, name, packed[name]); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
		a.files = append(a.files, File{name, role, s})
	}
	a.files = append(a.files, a.signing...)
	if a.report.Certificate != nil && len(a.report.Unlisted) > 0 {
		return a.refuse(wrongDigest("%s is signed, and does not name %s", a.report.Manifest, strings.Join(a.report.Unlisted, ", ")))
	}
	return nil
}

// compareSize tells of a file that has not the size that the OVF says. Without a
// manifest that is the only sign of one that was cut.
func (a *Appliance) compareSize(f machine.File) {
	size := a.members[f.Name].Size()
	switch {
	case f.Size < 0 || size == f.Size:
	case size < f.Size:
		a.warn("%s has %d bytes, and %s says %d: it may have been cut short", f.Name, size, a.Descriptor.Name, f.Size)
	default:
		a.warn("%s has %d bytes, and %s says %d", f.Name, size, a.Descriptor.Name, f.Size)
	}
}

// findParts opens a file of the References, or the parts that it was cut into:
// all of one size but for the last.
func (a *Appliance) findParts(f machine.File) ([]string, error) {
	if f.ChunkSize == 0 {
		name, _, err := a.find(f.Name)
		return []string{name}, err
	}
	whole := new(parts)
	var names []string
	for n := 0; ; n++ {
		name, s, err := a.find(fmt.Sprintf("%s.%09d", f.Name, n))
		if errors.Is(err, ErrMissing) && n > 0 && (f.Size < 0 || whole.Size() == f.Size) {
			break
		}
		if err != nil {
			return nil, err
		}
		if whole.Size() != int64(n)*f.ChunkSize || s.Size() > f.ChunkSize {
			return nil, machine.Malformed("%q is cut into parts of %d bytes, and the one before %q has another size", f.Name, f.ChunkSize, name)
		}
		whole.append(member{name: name, Section: s})
		names = append(names, name)
	}
	a.chunks[f.Name] = whole
	return names, nil
}

func readAll(ctx context.Context, s Section, limit int64) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if s.Size() > limit {
		return nil, machine.Malformed("%d bytes, more than %d", s.Size(), limit)
	}
	data := make([]byte, s.Size())
	return data, readFull(s, data, 0)
}
