//go:build tools

package davit

// Pinned before the code that uses them lands; deleted once it has.
import (
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/olareg/olareg"
	_ "github.com/opencontainers/image-spec/specs-go/v1"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/sigstore/sigstore-go/pkg/verify"
	_ "github.com/sigstore/sigstore/pkg/signature"
	_ "github.com/spf13/cobra"
	_ "github.com/ulikunitz/xz"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "oras.land/oras-go/v2"
)
