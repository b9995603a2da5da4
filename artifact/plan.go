package artifact

// What a writer keeps and rewrites (docs/spec.md). Only plain sizes decide
// here, so that another encoder moves no boundary.

const (
	// firstLayerPlain is the size of the first layers, in bytes: small
	// enough to be the unit of retry, large enough that an image has few.
	firstLayerPlain = 48 << 20

	maxLayers    = 384 // above, layers are rewritten: ECR refuses about 500
	targetLayers = 256
)

// layerLimit returns how many plain bytes the j-th new layer, from 1, holds
// when the bases have that many layers.
func layerLimit(bases, j int) int64 {
	return firstLayerPlain << min((bases+j)/32, 7)
}

// keepLayers says which layers of the bases a new artifact keeps. live is the
// blocks of the distinct chunks of the new disks that belong to a layer, all
// the blocks of its directory, fresh the number of new layers so far. Layers
// that scrub, which may be nil, is true for are not kept in any case.
func keepLayers(live, all []int64, fresh int, scrub []bool) []bool {
	keep := make([]bool, len(live))
	kept := 0
	for i := range live {
		keep[i] = live[i] > 0 && 4*live[i] >= all[i] && (scrub == nil || !scrub[i])
		if keep[i] {
			kept++
		}
	}
	if fresh == 0 || fresh+kept <= maxLayers {
		return keep
	}
	for kept > 0 && fresh+kept > targetLayers {
		least := -1
		for i := range live {
			if keep[i] && (least < 0 || live[i] < live[least]) {
				least = i
			}
		}
		keep[least] = false
		kept--
	}
	return keep
}
