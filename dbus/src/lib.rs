//! The D-Bus API of fastvpnd.
