"""Files that go in and come out: hardened readers, atomic writers, and the record they carry."""
