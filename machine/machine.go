// Package machine reads and writes descriptions of virtual machines.
//
// So far it knows as much as bare disks need: [BareOVF] writes the OVF of an
// artifact that was made from disks alone, and [Disks] reads which disks an
// OVF has. It opens no file: what an OVF names is for the caller to find.
package machine

// A Disk is a virtual disk of a machine.
type Disk struct {
	Name     string // its ovf:diskId
	Capacity int64  // bytes
	FileRef  string // the ovf:id of the file that holds it; empty: none does, the disk is blank
}
