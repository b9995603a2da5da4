package remote

// What tests outside of the package look at.

const (
	MaxRedirects     = maxRedirects
	MaxReferrerPages = maxReferrerPages
)

var (
	ErrIdle           = errIdle
	ParseContentRange = parseContentRange
)
