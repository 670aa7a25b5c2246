"""What the contracts are told about DCAP: the structs of IDcapCollateral and IDcapVerifier, made from Intel's own forms."""
