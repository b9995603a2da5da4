// Package guest looks at what a guest has put onto a disk: partitions, file
// systems, and the blocks that those say are free. [Partitions] is for people
// to read, [Trim] leaves the free blocks out.
//
// It only reads, and guesses nothing into existence: what it does not know, or
// could take for two things, stays as it is. A guest has written all of what
// it reads, so nothing of that is believed before it is checked.
package guest
