package transfer

// Len is how much a store keeps.
func (m *Memory) Len() int {
	m.lock()
	defer m.mu.Unlock()
	return len(m.kept) + len(m.byCall)
}

// Unindex loses the index of a call.
func (m *Memory) Unindex(call string) { delete(m.byCall, call) }

// Evict loses a record.
func (m *Memory) Evict(id string) { delete(m.kept, id) }
