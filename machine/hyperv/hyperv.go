// Package hyperv writes the PowerShell script that creates a machine in Hyper-V.
package hyperv
