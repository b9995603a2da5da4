package vmx

import "strings"

// defaultGuest is for a machine whose system VMware has no word for.
const (
	defaultGuest = "other-64"
	defaultLinux = "otherlinux-64"
)

// irregularGuests are the identifiers of vim.vm.GuestOsDescriptor whose capital
// letters, or more, a VMX does not have.
var irregularGuests = []string{
	"winMeGuest", "winNTGuest", "win2000ProGuest", "win2000ServGuest", "win2000AdvServGuest",
	"winXPHomeGuest", "winXPProGuest", "winXPPro64Guest",
	"winNetWebGuest", "winNetStandardGuest", "winNetEnterpriseGuest", "winNetDatacenterGuest", "winNetBusinessGuest",
	"winNetStandard64Guest", "winNetEnterprise64Guest", "winNetDatacenter64Guest",
	"winLonghornGuest", "winLonghorn64Guest", "winVistaGuest", "winVista64Guest",
	"windows7Server64Guest", "windows8Server64Guest", "windows9Server64Guest", "windowsHyperVGuest",
	"windows2019srvNext_64Guest", "windows2022srvNext_64Guest",
	"freebsd64Guest", "centos64Guest", "fedora64Guest", "mandriva64Guest", "opensuse64Guest", "suse64Guest",
	"sles64Guest", "turboLinuxGuest", "turboLinux64Guest", "ubuntu64Guest", "coreos64Guest", "vmwarePhoton64Guest",
	"oracleLinuxGuest", "oracleLinux64Guest", "oracleLinux6Guest", "oracleLinux6_64Guest", "oracleLinux7Guest",
	"oracleLinux7_64Guest", "oracleLinux8_64Guest", "oracleLinux9_64Guest", "oracleLinux10_64Guest",
	"otherLinuxGuest", "otherLinux64Guest", "other24xLinuxGuest", "other24xLinux64Guest", "other26xLinuxGuest",
	"other26xLinux64Guest", "other3xLinuxGuest", "other3xLinux64Guest", "other4xLinuxGuest", "other4xLinux64Guest",
	"other5xLinuxGuest", "other5xLinux64Guest", "other6xLinuxGuest", "other6xLinux64Guest", "other7xLinuxGuest",
	"other7xLinux64Guest", "genericLinuxGuest", "openServer5Guest", "openServer6Guest", "unixWare7Guest",
	"eComStationGuest", "eComStation2Guest", "darwin64Guest", "crxPod1Guest", "crxSys1Guest", "otherGuest64",
}

// guestAliases are words of a VMX that have nothing to do with the identifier.
var guestAliases = []struct{ vmx, id string }{
	{"winhyperv", "windowsHyperVGuest"},
	{"vmware-photon-64", "vmwarePhoton64Guest"},
	{"longhorn", "winLonghornGuest"},
	{"longhorn-64", "winLonghorn64Guest"},
}

// guestID returns the identifier, as in vmw:osType, for guestOS of a VMX:
// "debian12-64" is debian12_64Guest.
func guestID(vmx string) string {
	vmx = strings.ToLower(strings.TrimSpace(vmx))
	switch vmx {
	case "":
		return ""
	case "linux": // of Workstation 4 and before
		vmx = "otherlinux"
	}
	for _, a := range guestAliases {
		if a.vmx == vmx {
			return a.id
		}
	}
	for _, id := range irregularGuests {
		if guestWord(id) == vmx {
			return id
		}
	}
	if base, ok := strings.CutSuffix(vmx, "-64"); ok {
		return base + "_64Guest"
	}
	return vmx + "Guest"
}

// guestWord is the other way around; "" for what is no identifier.
func guestWord(id string) string {
	for _, a := range guestAliases {
		if a.id == id {
			return a.vmx
		}
	}
	word := strings.ToLower(id)
	for _, r := range word {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return ""
		}
	}
	if word == "otherguest64" {
		return "other-64"
	}
	word, ok := strings.CutSuffix(word, "guest")
	if !ok || word == "" {
		return ""
	}
	base, is64 := strings.CutSuffix(word, "64")
	if is64 {
		base = strings.TrimSuffix(base, "_")
	}
	// windows8Server64Guest is windows8srv-64.
	if strings.HasPrefix(base, "windows") {
		if b, ok := strings.CutSuffix(base, "server"); ok {
			base = b + "srv"
		}
	}
	if is64 && base != "" {
		return base + "-64"
	}
	return base
}

// isLinux says whether the word of a VMX is for a Linux.
func isLinux(word string) bool {
	for _, prefix := range []string{
		"almalinux", "amazonlinux", "asianux", "centos", "coreos", "crx", "debian", "fedora", "flatcar", "genericlinux", "kylinlinux", "mandrake", "mandriva",
		"miraclelinux", "nld", "oes", "opensuse", "oraclelinux", "other24xlinux", "other26xlinux", "other3xlinux", "other4xlinux", "other5xlinux",
		"other6xlinux", "other7xlinux", "otherlinux", "pardus", "redhat", "rhel", "rockylinux", "sjds", "sles", "suse", "turbolinux", "ubuntu", "vmware-photon",
	} {
		if strings.HasPrefix(word, prefix) {
			return true
		}
	}
	return false
}
