//! litefs-tests
