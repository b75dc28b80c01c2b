//go:build !unix

package bench

// processUsage knows nothing here: the rows of processor time and memory then say so.
func processUsage() Usage { return Usage{} }

func residentMemory(string) uint64 { return 0 }
