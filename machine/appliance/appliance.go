// Package appliance opens and writes virtual appliances: machines with all their files.
package appliance
