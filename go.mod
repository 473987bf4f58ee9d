module voicebridge

go 1.26
