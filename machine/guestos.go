package machine

import "strings"

// Complete fills in the words for the guest's system that g lacks, from those
// it has: VMware's first, as they say most, then VirtualBox's, libosinfo's and
// CIM's. What g has is kept, and what the table does not know stays empty: what
// is for ARM, for one.
func (g GuestOS) Complete() GuestOS {
	row, ok := g.find()
	if !ok || g.Architecture() != "" {
		return g
	}
	if g.CIM == 0 {
		g.CIM = row.CIM
	}
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&g.Version, row.Version}, {&g.VMware, row.VMware}, {&g.VirtualBox, row.VirtualBox}, {&g.Osinfo, row.Osinfo}, {&g.Description, row.Description},
	} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	return g
}

// Architecture is that of the machines that the words are for, if they are for
// no x86: arm64, else "". VMware and VirtualBox say it nowhere else in an OVF.
func (g GuestOS) Architecture() string {
	if strings.HasPrefix(g.VMware, "arm-") || strings.HasSuffix(g.VirtualBox, "_arm64") {
		return "arm64"
	}
	return ""
}

// IsFor says whether the words make who reads them, and no other word, take a
// machine for one of its architecture.
func (g GuestOS) IsFor(architecture string) bool {
	is := g.Architecture()
	return architecture == "" || is == architecture || is == "" && IsX86(architecture)
}

// IsX86 says whether an architecture is that of a PC, as all take a machine for
// that does not say it.
func IsX86(architecture string) bool {
	return architecture == "" || architecture == "amd64" || architecture == "386"
}

// find returns the row of the most telling word that the table has: among those
// of one word, the one of g's version, else the first.
func (g GuestOS) find() (GuestOS, bool) {
	for _, same := range []func(row GuestOS) bool{
		func(row GuestOS) bool { return g.VMware != "" && g.VMware == row.VMware },
		func(row GuestOS) bool { return g.VirtualBox != "" && g.VirtualBox == row.VirtualBox },
		func(row GuestOS) bool { return g.Osinfo != "" && g.Osinfo == row.Osinfo },
		func(row GuestOS) bool { return g.CIM != 0 && g.CIM == row.CIM },
	} {
		first := -1
		for i, row := range guests {
			if !same(row) {
				continue
			}
			if row.Version == g.Version {
				return row, true
			}
			if first < 0 {
				first = i
			}
		}
		if first >= 0 {
			row := guests[first]
			if g.Version != "" { // not that of the row, so neither are its words for a version
				row = general(row)
			}
			return row, true
		}
	}
	return GuestOS{}, false
}

// general is the row without what it says of a version, when another row of its
// words is of another one.
func general(row GuestOS) GuestOS {
	if row.Version == "" {
		return row
	}
	g := GuestOS{CIM: row.CIM}
	for _, other := range guests {
		if other.Version != row.Version && other.CIM == row.CIM && other.VMware == row.VMware {
			g.VMware = row.VMware
		}
		if other.Version != row.Version && other.CIM == row.CIM && other.VirtualBox == row.VirtualBox {
			g.VirtualBox = row.VirtualBox
		}
	}
	return g
}

// guests are the systems with their words. Those of one word stand together, the
// one without a version first, else the newest; 64 bits before 32, as libosinfo
// does not tell them apart.
//
// CIM is as VirtualBox and ovftool have it, up to CIM 2.52; what is newer than
// that has the word for any of its kind (36, 101: Linux; 102: other, 64 bits).
var guests = []GuestOS{
	{102, "", "otherGuest64", "Other_64", "", "Other (64-bit)"},
	{1, "", "otherGuest", "Other", "", "Other (32-bit)"},

	{101, "", "otherLinux64Guest", "Linux_64", "", "Linux (64-bit)"},
	{36, "", "otherLinuxGuest", "Linux", "", "Linux (32-bit)"},
	{100, "", "other26xLinux64Guest", "Linux26_64", "", "Linux 2.6 (64-bit)"},
	{99, "", "other26xLinuxGuest", "Linux26", "", "Linux 2.6 (32-bit)"},
	{101, "3", "other3xLinux64Guest", "Linux_64", "", "Linux 3 (64-bit)"},
	{36, "3", "other3xLinuxGuest", "Linux", "", "Linux 3 (32-bit)"},
	{101, "4", "other4xLinux64Guest", "Linux_64", "", "Linux 4 (64-bit)"},
	{36, "4", "other4xLinuxGuest", "Linux", "", "Linux 4 (32-bit)"},
	{101, "5", "other5xLinux64Guest", "Linux_64", "", "Linux 5 (64-bit)"},
	{101, "6", "other6xLinux64Guest", "Linux_64", "", "Linux 6 (64-bit)"},

	{96, "", "", "Debian_64", "", "Debian GNU/Linux (64-bit)"},
	{96, "13", "debian13_64Guest", "Debian13_64", "http://debian.org/debian/13", "Debian GNU/Linux 13 (64-bit)"},
	{96, "12", "debian12_64Guest", "Debian12_64", "http://debian.org/debian/12", "Debian GNU/Linux 12 (64-bit)"},
	{96, "11", "debian11_64Guest", "Debian11_64", "http://debian.org/debian/11", "Debian GNU/Linux 11 (64-bit)"},
	{96, "10", "debian10_64Guest", "Debian10_64", "http://debian.org/debian/10", "Debian GNU/Linux 10 (64-bit)"},
	{96, "9", "debian9_64Guest", "Debian9_64", "http://debian.org/debian/9", "Debian GNU/Linux 9 (64-bit)"},
	{96, "8", "debian8_64Guest", "Debian8_64", "http://debian.org/debian/8", "Debian GNU/Linux 8 (64-bit)"},
	{96, "7", "debian7_64Guest", "Debian7_64", "http://debian.org/debian/7", "Debian GNU/Linux 7 (64-bit)"},
	{96, "6", "debian6_64Guest", "Debian6_64", "http://debian.org/debian/6", "Debian GNU/Linux 6 (64-bit)"},
	{95, "", "", "Debian", "", "Debian GNU/Linux (32-bit)"},
	{95, "12", "debian12Guest", "Debian12", "http://debian.org/debian/12", "Debian GNU/Linux 12 (32-bit)"},
	{95, "11", "debian11Guest", "Debian11", "http://debian.org/debian/11", "Debian GNU/Linux 11 (32-bit)"},
	{95, "10", "debian10Guest", "Debian10", "http://debian.org/debian/10", "Debian GNU/Linux 10 (32-bit)"},
	{95, "9", "debian9Guest", "Debian9", "http://debian.org/debian/9", "Debian GNU/Linux 9 (32-bit)"},
	{95, "8", "debian8Guest", "Debian8", "http://debian.org/debian/8", "Debian GNU/Linux 8 (32-bit)"},
	{95, "7", "debian7Guest", "Debian7", "http://debian.org/debian/7", "Debian GNU/Linux 7 (32-bit)"},
	{95, "6", "debian6Guest", "Debian6", "http://debian.org/debian/6", "Debian GNU/Linux 6 (32-bit)"},

	{94, "", "ubuntu64Guest", "Ubuntu_64", "", "Ubuntu (64-bit)"},
	{94, "24.04", "ubuntu64Guest", "Ubuntu24_LTS_64", "http://ubuntu.com/ubuntu/24.04", "Ubuntu 24.04 LTS (64-bit)"},
	{94, "22.04", "ubuntu64Guest", "Ubuntu22_LTS_64", "http://ubuntu.com/ubuntu/22.04", "Ubuntu 22.04 LTS (64-bit)"},
	{94, "20.04", "ubuntu64Guest", "Ubuntu20_LTS_64", "http://ubuntu.com/ubuntu/20.04", "Ubuntu 20.04 LTS (64-bit)"},
	{94, "18.04", "ubuntu64Guest", "Ubuntu18_LTS_64", "http://ubuntu.com/ubuntu/18.04", "Ubuntu 18.04 LTS (64-bit)"},
	{94, "16.04", "ubuntu64Guest", "Ubuntu16_LTS_64", "http://ubuntu.com/ubuntu/16.04", "Ubuntu 16.04 LTS (64-bit)"},
	{93, "", "ubuntuGuest", "Ubuntu", "", "Ubuntu (32-bit)"},

	{80, "", "", "RedHat_64", "", "Red Hat Enterprise Linux (64-bit)"},
	{80, "9", "rhel9_64Guest", "RedHat9_64", "http://redhat.com/rhel/9.0", "Red Hat Enterprise Linux 9 (64-bit)"},
	{80, "8", "rhel8_64Guest", "RedHat8_64", "http://redhat.com/rhel/8.0", "Red Hat Enterprise Linux 8 (64-bit)"},
	{80, "7", "rhel7_64Guest", "RedHat7_64", "http://redhat.com/rhel/7.0", "Red Hat Enterprise Linux 7 (64-bit)"},
	{80, "6", "rhel6_64Guest", "RedHat6_64", "http://redhat.com/rhel/6.0", "Red Hat Enterprise Linux 6 (64-bit)"},
	{80, "5", "rhel5_64Guest", "RedHat5_64", "http://redhat.com/rhel/5.0", "Red Hat Enterprise Linux 5 (64-bit)"},
	{80, "4", "rhel4_64Guest", "RedHat4_64", "http://redhat.com/rhel/4.0", "Red Hat Enterprise Linux 4 (64-bit)"},
	{79, "", "", "RedHat", "", "Red Hat Enterprise Linux (32-bit)"},
	{79, "7", "rhel7Guest", "", "", "Red Hat Enterprise Linux 7 (32-bit)"},
	{79, "6", "rhel6Guest", "RedHat6", "http://redhat.com/rhel/6.0", "Red Hat Enterprise Linux 6 (32-bit)"},
	{79, "5", "rhel5Guest", "RedHat5", "http://redhat.com/rhel/5.0", "Red Hat Enterprise Linux 5 (32-bit)"},
	{79, "4", "rhel4Guest", "RedHat4", "http://redhat.com/rhel/4.0", "Red Hat Enterprise Linux 4 (32-bit)"},

	{107, "", "centos64Guest", "RedHat_64", "", "CentOS (64-bit)"},
	{107, "9", "centos9_64Guest", "RedHat9_64", "http://centos.org/centos-stream/9", "CentOS Stream 9 (64-bit)"},
	{107, "8", "centos8_64Guest", "RedHat8_64", "http://centos.org/centos/8", "CentOS 8 (64-bit)"},
	{107, "7", "centos7_64Guest", "RedHat7_64", "http://centos.org/centos/7.0", "CentOS 7 (64-bit)"},
	{107, "6", "centos6_64Guest", "RedHat6_64", "http://centos.org/centos/6.0", "CentOS 6 (64-bit)"},
	{106, "", "centosGuest", "RedHat", "", "CentOS (32-bit)"},
	{106, "6", "centos6Guest", "RedHat6", "http://centos.org/centos/6.0", "CentOS 6 (32-bit)"},
	{101, "", "rockylinux_64Guest", "RedHat_64", "", "Rocky Linux (64-bit)"},
	{101, "9", "rockylinux_64Guest", "RedHat9_64", "http://rockylinux.org/rocky/9", "Rocky Linux 9 (64-bit)"},
	{101, "8", "rockylinux_64Guest", "RedHat8_64", "http://rockylinux.org/rocky/8", "Rocky Linux 8 (64-bit)"},
	{101, "", "almalinux_64Guest", "RedHat_64", "", "AlmaLinux (64-bit)"},
	{101, "9", "almalinux_64Guest", "RedHat9_64", "http://almalinux.org/almalinux/9", "AlmaLinux 9 (64-bit)"},
	{101, "8", "almalinux_64Guest", "RedHat8_64", "http://almalinux.org/almalinux/8", "AlmaLinux 8 (64-bit)"},

	{109, "", "oracleLinux64Guest", "Oracle_64", "", "Oracle Linux (64-bit)"},
	{109, "9", "oracleLinux9_64Guest", "Oracle9_64", "http://oracle.com/ol/9.0", "Oracle Linux 9 (64-bit)"},
	{109, "8", "oracleLinux8_64Guest", "Oracle8_64", "http://oracle.com/ol/8.0", "Oracle Linux 8 (64-bit)"},
	{109, "7", "oracleLinux7_64Guest", "Oracle7_64", "http://oracle.com/ol/7.0", "Oracle Linux 7 (64-bit)"},
	{109, "6", "oracleLinux6_64Guest", "Oracle6_64", "http://oracle.com/ol/6.0", "Oracle Linux 6 (64-bit)"},
	{108, "", "oracleLinuxGuest", "Oracle", "", "Oracle Linux (32-bit)"},

	{101, "", "fedora64Guest", "Fedora_64", "", "Fedora (64-bit)"},
	{101, "42", "fedora64Guest", "Fedora_64", "http://fedoraproject.org/fedora/42", "Fedora 42 (64-bit)"},
	{101, "41", "fedora64Guest", "Fedora_64", "http://fedoraproject.org/fedora/41", "Fedora 41 (64-bit)"},
	{101, "40", "fedora64Guest", "Fedora_64", "http://fedoraproject.org/fedora/40", "Fedora 40 (64-bit)"},
	{36, "", "fedoraGuest", "Fedora", "", "Fedora (32-bit)"},

	{85, "", "sles64Guest", "SUSE_LE_64", "", "SUSE Linux Enterprise Server (64-bit)"},
	{85, "15", "sles15_64Guest", "SUSE_LE_64", "http://suse.com/sles/15", "SUSE Linux Enterprise Server 15 (64-bit)"},
	{85, "12", "sles12_64Guest", "SUSE_LE_64", "http://suse.com/sles/12", "SUSE Linux Enterprise Server 12 (64-bit)"},
	{85, "11", "sles11_64Guest", "SUSE_LE_64", "http://suse.com/sles/11", "SUSE Linux Enterprise Server 11 (64-bit)"},
	{84, "", "slesGuest", "SUSE_LE", "", "SUSE Linux Enterprise Server (32-bit)"},
	{83, "", "opensuse64Guest", "OpenSUSE_64", "", "openSUSE (64-bit)"},
	{83, "tumbleweed", "opensuse64Guest", "OpenSUSE_Tumbleweed_64", "http://opensuse.org/opensuse/tumbleweed", "openSUSE Tumbleweed (64-bit)"},
	{83, "15", "opensuse64Guest", "OpenSUSE_Leap_64", "http://opensuse.org/opensuse/15.0", "openSUSE Leap 15 (64-bit)"},
	{83, "", "suse64Guest", "OpenSUSE_64", "", "SUSE Linux (64-bit)"},
	{82, "", "opensuseGuest", "OpenSUSE", "", "openSUSE (32-bit)"},
	{82, "", "suseGuest", "OpenSUSE", "", "SUSE Linux (32-bit)"},

	{101, "", "vmwarePhoton64Guest", "Linux_64", "", "VMware Photon OS (64-bit)"},
	{101, "", "amazonlinux2_64Guest", "Linux_64", "", "Amazon Linux 2 (64-bit)"},
	{101, "", "otherLinux64Guest", "ArchLinux_64", "http://archlinux.org/archlinux/rolling", "Arch Linux (64-bit)"},
	{101, "", "otherLinux64Guest", "Gentoo_64", "http://gentoo.org/gentoo/rolling", "Gentoo Linux (64-bit)"},

	{78, "", "freebsd64Guest", "FreeBSD_64", "", "FreeBSD (64-bit)"},
	{78, "14", "freebsd14_64Guest", "FreeBSD_64", "http://freebsd.org/freebsd/14.0", "FreeBSD 14 (64-bit)"},
	{78, "13", "freebsd13_64Guest", "FreeBSD_64", "http://freebsd.org/freebsd/13.0", "FreeBSD 13 (64-bit)"},
	{78, "12", "freebsd12_64Guest", "FreeBSD_64", "http://freebsd.org/freebsd/12.0", "FreeBSD 12 (64-bit)"},
	{42, "", "freebsdGuest", "FreeBSD", "", "FreeBSD (32-bit)"},
	{81, "", "solaris11_64Guest", "Solaris11_64", "http://oracle.com/solaris/11", "Oracle Solaris 11 (64-bit)"},
	{81, "", "solaris10_64Guest", "Solaris10U8_or_later_64", "", "Oracle Solaris 10 (64-bit)"},
	{104, "", "vmkernel8Guest", "", "", "VMware ESXi 8"},
	{104, "", "vmkernel7Guest", "", "", "VMware ESXi 7"},
	{104, "", "vmkernel65Guest", "", "", "VMware ESXi 6.x"},

	{112, "", "windows8Server64Guest", "Windows2012_64", "http://microsoft.com/win/2k12", "Microsoft Windows Server 2012"},
	{115, "", "windows8Server64Guest", "Windows2012_64", "http://microsoft.com/win/2k12r2", "Microsoft Windows Server 2012 R2"},
	{118, "", "windows9Server64Guest", "Windows2016_64", "http://microsoft.com/win/2k16", "Microsoft Windows Server 2016"},
	{102, "", "windows2019srv_64Guest", "Windows2019_64", "http://microsoft.com/win/2k19", "Microsoft Windows Server 2019"},
	{102, "", "windows2019srvNext_64Guest", "Windows2022_64", "http://microsoft.com/win/2k22", "Microsoft Windows Server 2022"},
	{102, "", "windows2022srvNext_64Guest", "Windows2025_64", "http://microsoft.com/win/2k25", "Microsoft Windows Server 2025"},
	{103, "", "windows7Server64Guest", "Windows2008_64", "http://microsoft.com/win/2k8r2", "Microsoft Windows Server 2008 R2"},
	{77, "", "winLonghorn64Guest", "Windows2008_64", "http://microsoft.com/win/2k8", "Microsoft Windows Server 2008 (64-bit)"},
	{76, "", "winLonghornGuest", "Windows2008", "http://microsoft.com/win/2k8", "Microsoft Windows Server 2008 (32-bit)"},
	{70, "", "winNetStandard64Guest", "Windows2003_64", "http://microsoft.com/win/2k3", "Microsoft Windows Server 2003 (64-bit)"},
	{70, "", "winNetEnterprise64Guest", "Windows2003_64", "http://microsoft.com/win/2k3", "Microsoft Windows Server 2003 (64-bit)"},
	{69, "", "winNetStandardGuest", "Windows2003", "http://microsoft.com/win/2k3", "Microsoft Windows Server 2003 (32-bit)"},
	{69, "", "winNetEnterpriseGuest", "Windows2003", "http://microsoft.com/win/2k3", "Microsoft Windows Server 2003 (32-bit)"},
	{102, "", "windows11_64Guest", "Windows11_64", "http://microsoft.com/win/11", "Microsoft Windows 11 (64-bit)"},
	{120, "", "windows9_64Guest", "Windows10_64", "http://microsoft.com/win/10", "Microsoft Windows 10 (64-bit)"},
	{119, "", "windows9Guest", "Windows10", "http://microsoft.com/win/10", "Microsoft Windows 10 (32-bit)"},
	{117, "", "windows8_64Guest", "Windows81_64", "http://microsoft.com/win/8.1", "Microsoft Windows 8.1 (64-bit)"},
	{116, "", "windows8Guest", "Windows81", "http://microsoft.com/win/8.1", "Microsoft Windows 8.1 (32-bit)"},
	{114, "", "windows8_64Guest", "Windows8_64", "http://microsoft.com/win/8", "Microsoft Windows 8 (64-bit)"},
	{113, "", "windows8Guest", "Windows8", "http://microsoft.com/win/8", "Microsoft Windows 8 (32-bit)"},
	{105, "", "windows7_64Guest", "Windows7_64", "http://microsoft.com/win/7", "Microsoft Windows 7 (64-bit)"},
	{105, "", "windows7Guest", "Windows7", "http://microsoft.com/win/7", "Microsoft Windows 7 (32-bit)"},
	{74, "", "winVista64Guest", "WindowsVista_64", "http://microsoft.com/win/vista", "Microsoft Windows Vista (64-bit)"},
	{73, "", "winVistaGuest", "WindowsVista", "http://microsoft.com/win/vista", "Microsoft Windows Vista (32-bit)"},
	{71, "", "winXPPro64Guest", "WindowsXP_64", "http://microsoft.com/win/xp", "Microsoft Windows XP (64-bit)"},
	{67, "", "winXPProGuest", "WindowsXP", "http://microsoft.com/win/xp", "Microsoft Windows XP (32-bit)"},
	{58, "", "win2000ProGuest", "Windows2000", "http://microsoft.com/win/2k", "Microsoft Windows 2000"},
	{58, "", "win2000ServGuest", "Windows2000", "http://microsoft.com/win/2k", "Microsoft Windows 2000 Server"},
}
