package coordinator

// Assign deals the micro-batches 0 … microBatches-1 of a step to members with the given numbers of devices (each at least
// 1) and returns each member's, ascending. They are dealt in rounds: one to the first device of every member, one to
// the second devices, and so on, so no device computes more than ⌈microBatches / devices⌉ of them and a short last round
// spreads over the members. All nodes call it with the same arguments: nothing needs to be sent.
func Assign(devices []int, microBatches int) [][]int {
	assigned := make([][]int, len(devices))
	for next := 0; next < microBatches; {
		before := next
		for device := 0; next < microBatches; device++ {
			dealt := false
			for member, n := range devices {
				if device < n && next < microBatches {
					assigned[member] = append(assigned[member], next)
					next++
					dealt = true
				}
			}
			if !dealt {
				break // no member has so many devices: the next round
			}
		}
		if next == before {
			panic("coordinator: Assign without a device")
		}
	}
	return assigned
}

// BusyShare is the share of the devices' time that a step of that many micro-batches uses, between 0 and 1: 8 micro-batches
// take 3 devices three rounds, 8 of 9 places are filled.
func BusyShare(devices, microBatches int) float64 {
	if devices < 1 || microBatches < 1 {
		return 0
	}
	rounds := 1 + (microBatches-1)/devices
	return float64(microBatches) / (float64(devices) * float64(rounds))
}
