//! litefs-examples
