// Package hyperv writes the PowerShell script that creates a machine in Hyper-V.
//
// Hyper-V has no file that describes a machine and is meant for others to
// write: its .vmcx is binary and undocumented. A script of its own cmdlets is
// what can be read before it is run.
//
// The script is for Windows PowerShell 5.1 and PowerShell 7: UTF-8 with a byte
// order mark, as 5.1 takes a file without for the host's ANSI code page, and
// with the line ends of Windows. It attaches the VHDX files beside it where they
// lie, creates nothing if a machine of that name exists or a file is missing,
// removes what it created if it fails, and does not start the machine.
//
// Texts of the model are in single-quoted strings, which have no escapes but a
// doubled quote, and nowhere else: not in comments, not in names of variables.
package hyperv

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// Limits of Hyper-V.
const (
	memoryUnit   = 2 << 20  // bytes; memory is a multiple of it
	minMemory    = 32 << 20 // bytes
	maxSCSI      = 4        // controllers of SCSI
	drivesOnSCSI = 64       // drives on one
	maxLegacy    = 4        // network cards that are emulated, in generation 1
	maxSynthetic = 64       // network cards that are not
)

// Write returns the script that creates m, and what of m is not in it. Disks and
// CD images are files beside the script: a name that is a path is an error, as
// is a disk in a format other than VHDX. A disk without a file is created blank.
//
// Machines with UEFI are of generation 2, others of generation 1. What sectors a
// disk has its VHDX says.
func Write(m *machine.Machine) ([]byte, []machine.Loss, error) {
	if m.CPUs > machine.MaxCPUs || m.Memory > machine.MaxMemory {
		return nil, nil, machine.Malformed("%d CPUs and %d bytes of memory", m.CPUs, m.Memory)
	}
	w := writer{m: m, generation: 1}
	if m.Firmware == machine.UEFI {
		w.generation = 2
	}
	w.placeDrives()
	w.head()
	w.checks()
	w.begin()
	w.drives()
	w.nics()
	w.firmware()
	w.end()
	w.rest()
	if w.err != nil {
		return nil, nil, w.err
	}
	// No text has a line end in it: see clean.
	script := bytes.ReplaceAll(w.script.Bytes(), []byte("\n"), []byte("\r\n"))
	return append([]byte("\ufeff"), script...), w.losses, nil
}

// A writer collects the script and what is not in it. The first error is kept.
type writer struct {
	m          *machine.Machine
	generation int
	like       machine.Bus // of the machine's disks, where one does not say its own
	disks      []place     // of m.Disks
	cdroms     []place     // of m.CDROMs
	blanks     []string
	scsi       int // drives on it
	script     bytes.Buffer
	losses     []machine.Loss
	err        error
}

// A place is where a drive is attached.
type place struct {
	bus        machine.Bus // IDE or SCSI; empty: nowhere
	controller int
	location   int
}

func (p place) String() string {
	return fmt.Sprintf("-ControllerNumber %d -ControllerLocation %d", p.controller, p.location)
}

// placeDrives says where drives are. Generation 2 has SCSI alone. Generation 1
// starts from IDE alone, from its first disk, and has CDs there alone; a guest
// without Hyper-V's drivers sees no more, so that what was on IDE stays there.
func (w *writer) placeDrives() {
	m := w.m
	w.disks, w.cdroms = make([]place, len(m.Disks)), make([]place, len(m.CDROMs))
	onIDE := func(d machine.Disk) bool { return exists(d) && d.SectorSize == 0 } // it has no other sectors than those of 512 bytes
	if i := slices.IndexFunc(m.Disks, func(d machine.Disk) bool { return d.Bus != "" }); i >= 0 {
		w.like = m.Disks[i].Bus
	}
	if w.generation == 1 {
		var free [2][2]bool
		for channel := range free {
			free[channel] = [2]bool{true, true}
		}
		// take returns the wanted place, else the first free one.
		take := func(channel, unit int) place {
			order := [][2]int{{channel, unit}, {0, 0}, {0, 1}, {1, 0}, {1, 1}}
			for _, o := range order {
				if o[0] >= 0 && o[0] < 2 && o[1] >= 0 && o[1] < 2 && free[o[0]][o[1]] {
					free[o[0]][o[1]] = false
					return place{machine.IDE, o[0], o[1]}
				}
			}
			return place{}
		}
		first := slices.IndexFunc(m.Disks, onIDE)
		if first >= 0 {
			w.disks[first] = take(0, 0)
		}
		for i, d := range m.CDROMs {
			channel, unit := w.wanted(d.Bus, d.Controller, d.Unit)
			if channel < 0 { // where Hyper-V has it in a new machine
				channel, unit = 1, 0
			}
			w.cdroms[i] = take(channel, unit)
		}
		for i, d := range m.Disks {
			if channel, unit := w.wanted(cmp.Or(d.Bus, w.like), d.Controller, d.Unit); i != first && onIDE(d) && channel >= 0 {
				w.disks[i] = take(channel, unit)
			}
		}
	}
	for i, d := range m.Disks {
		if w.disks[i].bus == "" && exists(d) {
			w.disks[i] = w.nextSCSI()
		}
	}
	for i := range m.CDROMs {
		if w.generation == 2 {
			w.cdroms[i] = w.nextSCSI()
		}
	}
	if w.scsi > maxSCSI*drivesOnSCSI {
		w.fail(machine.Unsupported("%d drives on SCSI, Hyper-V has %d", w.scsi, maxSCSI*drivesOnSCSI))
	}
}

// exists says whether there is anything to attach or to create.
func exists(d machine.Disk) bool { return d.File != "" || d.Capacity > 0 }

// wanted returns the channel and unit of IDE that a drive has in the model, -1
// if it is on another bus.
func (w *writer) wanted(bus machine.Bus, controller string, unit int) (int, int) {
	if bus != machine.IDE {
		return -1, 0
	}
	for _, c := range w.m.Controllers {
		if c.Name == controller {
			return max(c.Number, 0), unit
		}
	}
	return 0, unit
}

func (w *writer) nextSCSI() place {
	p := place{machine.SCSI, w.scsi / drivesOnSCSI, w.scsi % drivesOnSCSI}
	w.scsi++
	return p
}

// head begins the script with its help and parameters.
func (w *writer) head() {
	w.print(`#Requires -Version 5.1
#Requires -Modules Hyper-V
<#
.SYNOPSIS
Creates a virtual machine in Hyper-V from the disks beside this script.
.DESCRIPTION
Written by davit. The disks stay where they are: move them first. The machine is
not started. Nothing is created if a machine of the same name exists.
.PARAMETER Name
Name of the machine.
.PARAMETER SwitchName
Virtual switch that all network adapters are connected to. Without it, each is
connected to the switch that has the name of its network, if there is one.
.PARAMETER Path
Folder for the machine's settings; without it, Hyper-V's own.
`)
	if w.secure() {
		w.print(`.PARAMETER SecureBootTemplate
Whose signatures Secure Boot accepts: MicrosoftWindows, or
MicrosoftUEFICertificateAuthority for other systems.
`)
	}
	name := w.m.Name
	if strings.TrimSpace(name) == "" {
		name = w.m.ID
	}
	if strings.TrimSpace(name) == "" {
		name = "vm"
	}
	w.print(`#>
[CmdletBinding()]
param(
    [ValidateNotNullOrEmpty()] [string]$Name = %s,
    [string]$SwitchName = '',
    [string]$Path = ''`, w.text("name", name))
	if w.secure() {
		w.print(",\n    [string]$SecureBootTemplate = %s", quote(w.template()))
	}
	w.print(`
)
Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

`)
}

// secure says whether Secure Boot can be had and is wanted.
func (w *writer) secure() bool { return w.generation == 2 && w.m.SecureBoot }

// template names the keys of Secure Boot that the guest was signed with.
func (w *writer) template() string {
	g := w.m.GuestOS.Complete()
	lower := strings.ToLower
	switch {
	case strings.HasPrefix(lower(g.VMware), "win"), strings.HasPrefix(lower(g.VirtualBox), "win"),
		strings.Contains(g.Osinfo, "microsoft.com/"), strings.Contains(lower(g.Description), "windows"):
		return "MicrosoftWindows"
	case g == machine.GuestOS{}:
		w.lose("guestOS", "", "not said: Secure Boot accepts what Microsoft signed for others, see -SecureBootTemplate")
	}
	return "MicrosoftUEFICertificateAuthority"
}

// checks stops the script before it has created anything.
func (w *writer) checks() {
	w.print(`# Connects an adapter to -SwitchName, or to the switch with the network's name.
function Connect-Network($Adapter, [string]$Network) {
    $wanted = $Network
    if ($SwitchName) { $wanted = $SwitchName }
    if (-not $wanted) { return }
    $found = @(Get-VMSwitch | Where-Object { $_.Name -eq $wanted })
    if ($found.Count -ne 1) {
        Write-Warning "Not connected: there is no virtual switch '$wanted', or more than one. See -SwitchName."
        return
    }
    Connect-VMNetworkAdapter -VMNetworkAdapter $Adapter -VMSwitch $found[0]
}

if (-not $PSScriptRoot) { throw 'Run this from a file: the disks are beside it.' }
if (Get-VM | Where-Object { $_.Name -eq $Name }) { throw "There is a virtual machine '$Name' already." }
if ($SwitchName -and @(Get-VMSwitch | Where-Object { $_.Name -eq $SwitchName }).Count -ne 1) {
    throw "There is no virtual switch '$SwitchName', or more than one."
}
`)
	m := w.m
	var files []string
	add := func(field, name string) {
		if !machine.IsPlainName(name) {
			w.fail(machine.Malformed("%s %q is not the name of a file beside the script", field, name))
		} else if !slices.Contains(files, name) {
			files = append(files, name)
		}
	}
	for i, d := range m.Disks {
		if d.File == "" {
			continue
		}
		if d.Format != "" && d.Format != "vhdx" {
			w.fail(machine.Unsupported("disks[%d] is in format %q, Hyper-V takes vhdx", i, d.Format))
		}
		add(fmt.Sprintf("disks[%d].file", i), d.File)
	}
	for i, d := range m.CDROMs {
		if d.File != "" && w.cdroms[i].bus != "" {
			add(fmt.Sprintf("cdroms[%d].file", i), d.File)
		}
	}
	w.list(files, `    if (-not (Test-Path -LiteralPath (Join-Path $PSScriptRoot $file) -PathType Leaf)) { throw "Missing beside this script: $file" }`)
	w.blanks = make([]string, len(m.Disks))
	taken := func(name string) bool {
		same := func(other string) bool { return strings.EqualFold(name, other) }
		return slices.ContainsFunc(files, same) || slices.ContainsFunc(w.blanks, same)
	}
	var blanks []string
	for i, d := range m.Disks {
		if d.File != "" || !exists(d) {
			continue
		}
		base := machine.FileName(d.Name, fmt.Sprintf("disk%d", i))
		name := base + ".vhdx"
		for n := 0; taken(name); n++ {
			name = fmt.Sprintf("%s-%d.vhdx", base, n)
		}
		w.blanks[i] = name
		blanks = append(blanks, name)
	}
	w.list(blanks, `    if (Test-Path -LiteralPath (Join-Path $PSScriptRoot $file)) { throw "This file would be overwritten: $file" }`)
}

// list does something with each of some files.
func (w *writer) list(files []string, do string) {
	if len(files) == 0 {
		return
	}
	var quoted []string
	for _, f := range files {
		quoted = append(quoted, quote(f))
	}
	w.print("foreach ($file in @(\n    %s\n)) {\n%s\n}\n", strings.Join(quoted, "\n    "), do)
}

// begin creates the machine, without what Hyper-V puts in by itself.
func (w *writer) begin() {
	m := w.m
	w.print("\n$new = @{ Name = $Name; Generation = %d; NoVHD = $true }\nif ($Path) { $new['Path'] = $Path }\n", w.generation)
	if m.Memory > 0 {
		memory := max((m.Memory+memoryUnit-1)/memoryUnit*memoryUnit, minMemory)
		if memory != m.Memory {
			w.lose("memory", fmt.Sprint(m.Memory), fmt.Sprintf("it is %d: Hyper-V has multiples of 2 MiB, from 32 MiB", memory))
		}
		w.print("$new['MemoryStartupBytes'] = %d\n", memory)
	}
	w.print(`$vm = $null
$blanks = @()
try {
    $vm = New-VM @new
    Set-VMMemory -VM $vm -DynamicMemoryEnabled $false
`)
	if m.CPUs > 0 {
		w.print("    Set-VMProcessor -VM $vm -Count %d\n", m.CPUs)
	}
	if notes := w.notes(); notes != "" {
		w.print("    Set-VM -VM $vm -Notes %s\n", notes)
	}
	w.print(`    Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
    Get-VMDvdDrive -VM $vm | Remove-VMDvdDrive
`)
	if w.scsi > 0 {
		w.print("    while (@(Get-VMScsiController -VM $vm).Count -lt %d) { Add-VMScsiController -VM $vm }\n", (w.scsi+drivesOnSCSI-1)/drivesOnSCSI)
	}
	if m.CoresPerSocket > 0 && m.CPUs > 1 {
		w.lose("coresPerSocket", fmt.Sprint(m.CoresPerSocket), "Hyper-V chooses the sockets")
	}
}

// notes is the description, each line a literal.
func (w *writer) notes() string {
	text := strings.TrimSpace(strings.ReplaceAll(w.m.Description, "\r\n", "\n"))
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	changed := false
	for i, line := range lines {
		w.noNUL("description", line)
		tidy := clean(line)
		changed = changed || tidy != line
		lines[i] = quote(tidy)
	}
	if changed {
		w.lose("description", "", "characters that do not print are spaces")
	}
	if len(lines) == 1 {
		return lines[0]
	}
	return "(@(\n        " + strings.Join(lines, "\n        ") + "\n    ) -join \"`r`n\")"
}

func (w *writer) drives() {
	for i, d := range w.m.Disks {
		p, field := w.disks[i], fmt.Sprintf("disks[%d]", i)
		if p.bus == "" {
			w.lose(field, d.Name, "it has neither a file nor a capacity, and is left out")
			continue
		}
		if d.Bus == "" {
			w.lose(field+".bus", "", "it is not said: it is on "+strings.ToUpper(string(p.bus)))
		}
		w.moved(field, p, d.Bus, d.Controller, d.Unit)
		if d.ReadOnly {
			w.lose(field+".readOnly", "true", "the guest can write to it")
		}
		file := d.File
		if file == "" {
			file = w.blanks[i]
			sectors := ""
			if d.SectorSize != 0 {
				sectors = fmt.Sprintf(" -LogicalSectorSizeBytes %d", d.SectorSize)
			}
			w.print("    $blanks += New-VHD -Dynamic -SizeBytes %d%s -Path (Join-Path $PSScriptRoot %s)\n", d.Capacity, sectors, quote(file))
		}
		w.print("    $disk%d = Add-VMHardDiskDrive -VM $vm -ControllerType %s %s -Path (Join-Path $PSScriptRoot %s) -Passthru\n", i, strings.ToUpper(string(p.bus)), p, quote(file))
	}
	for i, d := range w.m.CDROMs {
		p, field := w.cdroms[i], fmt.Sprintf("cdroms[%d]", i)
		if p.bus == "" {
			w.lose(field, d.File, "there are four places on IDE, and it is left out")
			continue
		}
		w.moved(field, p, d.Bus, d.Controller, d.Unit)
		path := ""
		if d.File != "" {
			path = fmt.Sprintf(" -Path (Join-Path $PSScriptRoot %s)", quote(d.File))
		}
		w.print("    $cdrom%d = Add-VMDvdDrive -VM $vm %s%s -Passthru\n", i, p, path)
	}
}

// moved tells that a drive is not where the model has it.
func (w *writer) moved(field string, p place, bus machine.Bus, controller string, unit int) {
	if bus == "" {
		return
	}
	if bus != p.bus {
		w.lose(field+".bus", string(bus), "it is on "+strings.ToUpper(string(p.bus)))
		return
	}
	if channel, unit := w.wanted(bus, controller, unit); bus == machine.IDE && (channel != p.controller || unit != p.location) {
		w.lose(field+".unit", fmt.Sprintf("%d:%d", channel, unit), fmt.Sprintf("it is %d:%d: generation 1 starts from its first disk at 0:0", p.controller, p.location))
	}
}

func (w *writer) nics() {
	legacy := 0
	if len(w.m.NICs) > maxSynthetic {
		w.fail(machine.Unsupported("%d network cards, Hyper-V has %d", len(w.m.NICs), maxSynthetic))
		return
	}
	for i, n := range w.m.NICs {
		field := fmt.Sprintf("nics[%d]", i)
		options := ""
		// Guests that were given one of these may have no driver of Hyper-V's.
		old := w.generation == 1 && legacy < maxLegacy && (n.Type == machine.PCnet || n.Type == machine.RTL8139)
		switch {
		case old:
			legacy++
			options = " -IsLegacy $true"
			w.lose(field+".type", string(n.Type), "it is Hyper-V's legacy card, a DEC 21140")
		case n.Type != "" && n.Type != machine.Synthetic:
			w.lose(field+".type", string(n.Type), "it is Hyper-V's own card")
		}
		if n.Name != "" {
			options += " -Name " + w.text(field+".name", n.Name)
		}
		if mac, ok := plainMAC(n.MAC); ok {
			options += " -StaticMacAddress " + quote(mac)
		} else if n.MAC != "" {
			w.lose(field+".mac", clean(n.MAC), "it is no address of one card, and Hyper-V chooses one")
		}
		w.print("    $nic%d = Add-VMNetworkAdapter -VM $vm%s -Passthru\n", i, options)
		w.print("    Connect-Network $nic%d %s\n", i, w.text(field+".network", n.Network))
	}
}

// plainMAC returns a MAC without colons, if it is one of a single card.
func plainMAC(mac string) (string, bool) {
	plain := strings.ToUpper(strings.ReplaceAll(mac, ":", ""))
	if len(mac) != 17 || len(plain) != 12 || strings.Trim(plain, "0123456789ABCDEF") != "" {
		return "", false
	}
	group := strings.ContainsRune("13579BDF", rune(plain[1]))
	return plain, !group && plain != "000000000000"
}

// startup are the boot devices of generation 1 in the order that Hyper-V has.
var startup = []struct {
	device machine.BootDevice
	name   string
}{
	{machine.BootCDROM, "CD"},
	{machine.BootDisk, "IDE"},
	{machine.BootNetwork, "LegacyNetworkAdapter"},
	{machine.BootFloppy, "Floppy"},
}

func (w *writer) firmware() {
	m := w.m
	if w.generation == 1 {
		w.startupOrder()
		if m.SecureBoot {
			w.lose("secureBoot", "true", "a machine with BIOS has none")
		}
		if m.TPM != "" {
			w.lose("tpm", string(m.TPM), "a machine of generation 1 has none")
		}
		return
	}
	if w.secure() {
		w.print("    Set-VMFirmware -VM $vm -EnableSecureBoot On -SecureBootTemplate $SecureBootTemplate\n")
	} else {
		w.print("    Set-VMFirmware -VM $vm -EnableSecureBoot Off\n")
	}
	switch m.TPM {
	case "":
	case machine.TPM20:
		w.print("    Set-VMKeyProtector -VM $vm -NewLocalKeyProtector\n    Enable-VMTPM -VM $vm\n")
	default:
		w.lose("tpm", string(m.TPM), "Hyper-V has 2.0, and the machine has none")
	}
	w.bootOrder()
}

// startupOrder sets the order of kinds of devices. Hyper-V wants all of them.
func (w *writer) startupOrder() {
	if len(w.m.BootOrder) == 0 {
		return
	}
	var first, rest []string
	for _, b := range w.m.BootOrder {
		for _, s := range startup {
			if s.device == b && !slices.Contains(first, s.name) {
				first = append(first, s.name)
			}
		}
	}
	for _, s := range startup {
		if !slices.Contains(first, s.name) {
			rest = append(rest, s.name)
		}
	}
	w.print("    Set-VMBios -VM $vm -StartupOrder @('%s')\n", strings.Join(append(first, rest...), "', '"))
}

// bootOrder sets the order of devices, which by itself is that of their making.
func (w *writer) bootOrder() {
	order := w.m.BootOrder
	if len(order) == 0 {
		order = []machine.BootDevice{machine.BootDisk, machine.BootCDROM, machine.BootNetwork}
	}
	var devices []string
	add := func(name string) {
		if !slices.Contains(devices, name) {
			devices = append(devices, name)
		}
	}
	for i, b := range order {
		switch b {
		case machine.BootDisk:
			for n, p := range w.disks {
				if p.bus != "" {
					add(fmt.Sprintf("$disk%d", n))
				}
			}
		case machine.BootCDROM:
			for n := range w.cdroms {
				add(fmt.Sprintf("$cdrom%d", n))
			}
		case machine.BootNetwork:
			for n := range w.m.NICs {
				add(fmt.Sprintf("$nic%d", n))
			}
		default:
			w.lose(fmt.Sprintf("bootOrder[%d]", i), clean(string(b)), "a machine of generation 2 starts from disks, CDs and the network")
		}
	}
	if len(devices) > 0 {
		w.print("    Set-VMFirmware -VM $vm -BootOrder @(%s)\n", strings.Join(devices, ", "))
	}
}

// end undoes all if anything failed. Remove-VM leaves disks alone.
func (w *writer) end() {
	w.print(`} catch {
    if ($null -ne $vm) {
        Write-Warning 'Removing the machine, which is not complete. The disks stay.'
        Remove-VM -VM $vm -Force -ErrorAction Continue
    }
    foreach ($blank in $blanks) { Remove-Item -LiteralPath $blank.Path -ErrorAction Continue }
    throw
}
Get-VM -Id $vm.Id
`)
}

// rest tells what of the model the script has no words for.
func (w *writer) rest() {
	m := w.m
	has := "IDE and SCSI"
	if w.generation == 2 {
		has = "SCSI"
	}
	for i, c := range m.Controllers {
		field := fmt.Sprintf("controllers[%d]", i)
		switch {
		case c.Type == machine.IDE && w.generation == 1 && c.Number < 2: // Hyper-V's is a PIIX4
		case c.Type == machine.SCSI:
			if c.Model != "" {
				w.lose(field+".model", string(c.Model), "it is Hyper-V's own")
			}
		case c.Type == machine.USB:
			w.lose(field, c.Name, "Hyper-V has no USB")
		default:
			w.lose(field, c.Name, "Hyper-V has "+has)
		}
	}
	if m.Display.Type != "" {
		w.lose("display.type", m.Display.Type, "it is Hyper-V's own")
	}
	if m.Display.Memory > 0 {
		w.lose("display.memory", fmt.Sprint(m.Display.Memory), "Hyper-V chooses it")
	}
	if m.Display.Monitors > 1 {
		w.lose("display.monitors", fmt.Sprint(m.Display.Monitors), "Hyper-V has one")
	}
	for _, f := range []struct{ field, value, reason string }{
		{"hardwareVersion", m.HardwareVersion, "it is of another product; Hyper-V takes its newest"},
		{"guestOS", words(m.GuestOS), "Hyper-V does not ask"},
	} {
		if f.value != "" {
			w.lose(f.field, f.value, f.reason)
		}
	}
	if !machine.IsX86(m.Architecture) {
		w.lose("architecture", m.Architecture, "the processors are those of the host")
	}
	if m.NVRAM != "" {
		w.lose("nvram", m.NVRAM, "Hyper-V makes firmware variables of its own")
	}
	if m.Product != (machine.Product{}) {
		w.lose("product", m.Product.Name, "there is no word for it")
	}
	for i := range m.EULAs {
		w.lose(fmt.Sprintf("eulas[%d]", i), "", "nobody is asked to accept it")
	}
	for i, p := range m.Properties {
		w.lose(fmt.Sprintf("properties[%d]", i), p.Key, "the guest is given none")
	}
	if len(m.Transport) > 0 {
		w.lose("transport", strings.Join(m.Transport, " "), "the guest is given no properties")
	}
}

// words says what g is, for people.
func words(g machine.GuestOS) string {
	for _, s := range []string{g.Description, g.VMware, g.VirtualBox, g.Osinfo} {
		if s != "" {
			return s
		}
	}
	return ""
}

// text is the literal of a text of one line. What does not print in it becomes
// a space, which is a loss: a line end would be a line end of the script, and
// marks of direction make a script look like another one.
func (w *writer) text(field, s string) string {
	w.noNUL(field, s)
	tidy := clean(s)
	if tidy != s {
		w.lose(field, tidy, "characters that do not print are spaces")
	}
	return quote(tidy)
}

func (w *writer) noNUL(field, s string) {
	if strings.ContainsRune(s, 0) {
		w.fail(machine.Malformed("%s %q has a NUL", field, s))
	}
}

// clean returns s with a space for what does not print, and in UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !machine.Visible(r) {
			return ' '
		}
		return r
	}, s)
}

// quotes are all that PowerShell takes for a single quote: ' and the
// typographic ones, any of which ends what any other began.
const quotes = "'\u2018\u2019\u201a\u201b"

// quote returns s as a single-quoted string of PowerShell, in which a quote that
// is followed by any quote is the second of them.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		b.WriteRune(r)
		if strings.ContainsRune(quotes, r) {
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

func (w *writer) print(format string, args ...any) { fmt.Fprintf(&w.script, format, args...) }

func (w *writer) lose(field, value, reason string) {
	w.losses = append(w.losses, machine.Loss{Field: field, Value: value, Reason: reason})
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
