// Package libvirt reads and writes the domain XML of libvirt.
package libvirt
