//! The member's API: history, continue watching, bookmark, hide, erase.
