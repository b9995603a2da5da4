package charset

import "testing"

func TestDecode(t *testing.T) {
	for _, test := range []struct{ encoding, text, want string }{
		{"GBK", "\xb4\xc5\xc5\xcc", "磁盘"},
		{"gb2312", "\xb4\xc5\xc5\xcc", "磁盘"},
		{"cp936", "\xb4\xc5\xc5\xcc", "磁盘"},
		{"GB18030", "\x81\x30\x81\x30\xb4\xc5", "\u0080磁"},
		{"Big5", "\xba\xcf\xba\xd0", "磁碟"},
		{"windows-950", "\xba\xcf\xba\xd0", "磁碟"},
		{"Shift_JIS", "\x83\x66\x83\x42\x83\x58\x83\x4e", "ディスク"},
		{"Shift_JIS", "\x83\x5c\x95\x5c", "ソ表"}, // whose second bytes are those of a backslash
		{"MS932", "\x83\x66", "デ"},
		{"EUC-JP", "\xa5\xc7\xa5\xa3", "ディ"},
		{"EUC-KR", "\xb5\xf0\xbd\xba\xc5\xa9", "디스크"},
		{"cp949", "\xb5\xf0", "디"},
		{"windows-1250", "\x9e\xe8", "žč"},
		{"windows-1251", "\xe4\xe8\xf1\xea", "диск"},
		{"KOI8-R", "\xc4\xc9\xd3\xcb", "диск"},
		{"windows-1252", "Gr\xf6\xdfe \x80", "Größe €"},
		{"ISO-8859-1", "Gr\xf6\xdfe \x80", "Größe €"},
		{"ISO-8859-2", "\xbe\xe8", "žč"},
		{"IBM850", "\x81", "ü"},
		{" utf-8 ", "größe", "größe"},

		{"UTF-8", "gr\xf6\xdfe", ""},
		{"GBK", "\xb4", ""},
		{"Shift_JIS", "\x83\x66\x83", ""},
		{"Big5", "\xff\xff", ""},
	} {
		e, ok := Find(test.encoding)
		if !ok {
			t.Errorf("%s is not known", test.encoding)
			continue
		}
		got, err := Decode(e, test.text)
		if (err != nil) != (test.want == "") || got != test.want {
			t.Errorf("%s of %x: %q, %v; want %q", test.encoding, test.text, got, err, test.want)
		}
	}
	for _, name := range []string{"", "EBCDIC-DK-NO", "klingon", "x-mac-klingon", "iso-2022-cn", "UTF-7"} {
		if e, ok := Find(name); ok {
			t.Errorf("%q is %v", name, e)
		}
	}
}
