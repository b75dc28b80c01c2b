package bench

// experiments lists everything that is measured, in the order of the table.
func experiments() []experiment {
	return []experiment{
		directExperiment(), roomExperiment(), hubExperiment(), storeExperiment(), millionExperiment(),
		lifeExperiment(), idleExperiment(), catchUpExperiment(),
	}
}
