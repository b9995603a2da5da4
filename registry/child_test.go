package registry

// runChild is the main of a process that a test starts from its own binary, to kill it or to give it an environment.
func runChild(what string, args []string) int {
	return 2
}
