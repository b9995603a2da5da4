// Govcsim is a vCenter in memory, and govc to work with it: govmomi's simulator
// and the commands of govc that import an OVF and show what came of it. Several
// commands are separated by "--". It ends with the first that fails.
//
//	govcsim import.ova -name vm vm.ova -- vm.info -json vm
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/cli/device"
	_ "github.com/vmware/govmomi/cli/importx"
	_ "github.com/vmware/govmomi/cli/vm"
	"github.com/vmware/govmomi/simulator"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	model := simulator.VPX()
	defer model.Remove()
	if err := model.Create(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server := model.Service.NewServer()
	defer server.Close()
	for name, value := range map[string]string{
		"GOVC_URL": server.URL.String(), "GOVC_INSECURE": "true", "GOVC_DATASTORE": "LocalDS_0", "GOVC_RESOURCE_POOL": "DC0_C0/Resources",
	} {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	for len(args) > 0 {
		n := slices.Index(args, "--")
		if n < 0 {
			n = len(args)
		}
		if code := cli.Run(args[:n]); code != 0 {
			return code
		}
		args = args[min(n+1, len(args)):]
	}
	return 0
}
