package machine

import "testing"

func TestComplete(t *testing.T) {
	debian12 := GuestOS{96, "12", "debian12_64Guest", "Debian12_64", "http://debian.org/debian/12", "Debian GNU/Linux 12 (64-bit)"}
	for _, test := range []struct {
		name      string
		got, want GuestOS
	}{
		{"nothing is known of nothing", GuestOS{}, GuestOS{}},
		{"what is not in the table stays as it is", GuestOS{CIM: 66, VMware: "ms-dos"}, GuestOS{CIM: 66, VMware: "ms-dos"}},
		{"VMware's word", GuestOS{VMware: "debian12_64Guest"}, debian12},
		{"VirtualBox's word", GuestOS{VirtualBox: "Debian12_64"}, debian12},
		{"libosinfo's word is 64 bits", GuestOS{Osinfo: "http://debian.org/debian/12"}, debian12},
		{"CIM with a version", GuestOS{CIM: 96, Version: "12"}, debian12},
		{"CIM alone has no version", GuestOS{CIM: 96}, GuestOS{CIM: 96, VirtualBox: "Debian_64", Description: "Debian GNU/Linux (64-bit)"}},
		{"VMware's word wins over CIM's, and CIM is kept", GuestOS{CIM: 36, VMware: "debian12_64Guest"}, GuestOS{36, "12", debian12.VMware, debian12.VirtualBox, debian12.Osinfo, debian12.Description}},
		{"a description is kept", GuestOS{CIM: 96, Version: "12", Description: "ours"}, GuestOS{96, "12", debian12.VMware, debian12.VirtualBox, debian12.Osinfo, "ours"}},
		{"a word without versions does not get one", GuestOS{VMware: "ubuntu64Guest"}, GuestOS{CIM: 94, VMware: "ubuntu64Guest", VirtualBox: "Ubuntu_64", Description: "Ubuntu (64-bit)"}},
		{"a version of its own chooses", GuestOS{VMware: "ubuntu64Guest", Version: "22.04"}, GuestOS{94, "22.04", "ubuntu64Guest", "Ubuntu22_LTS_64", "http://ubuntu.com/ubuntu/22.04", "Ubuntu 22.04 LTS (64-bit)"}},
		{"an unknown version is not called another", GuestOS{CIM: 96, Version: "99"}, GuestOS{CIM: 96, Version: "99", VirtualBox: "Debian_64", Description: "Debian GNU/Linux (64-bit)"}},
		{"what is for ARM is not taken for the same of x86", GuestOS{CIM: 94, VirtualBox: "Ubuntu_arm64"}, GuestOS{CIM: 94, VirtualBox: "Ubuntu_arm64"}},
		{"Windows 10 is VMware's 9", GuestOS{VirtualBox: "Windows10_64"}, GuestOS{CIM: 120, VMware: "windows9_64Guest", VirtualBox: "Windows10_64", Osinfo: "http://microsoft.com/win/10", Description: "Microsoft Windows 10 (64-bit)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.got.Complete(); got != test.want {
				t.Errorf("%+v.Complete() =\n%+v, want\n%+v", test.got, got, test.want)
			}
		})
	}
}

// Whoever translates a row's own words gets the row.
func TestCompleteKnowsItself(t *testing.T) {
	for _, row := range guests {
		if got := row.Complete(); got != row {
			t.Errorf("%+v.Complete() = %+v", row, got)
		}
		if got := (GuestOS{CIM: row.CIM, Version: row.Version, VMware: row.VMware}).Complete(); row.VMware != "" && got.VMware != row.VMware {
			t.Errorf("%q is called %q", row.VMware, got.VMware)
		}
	}
}
