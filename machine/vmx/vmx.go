// Package vmx reads and writes the .vmx files of VMware.
package vmx
