// Package vbox reads the .vbox files of VirtualBox.
package vbox
