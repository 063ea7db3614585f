//! Every metric, declared in one place and handed down as pre-labelled handles.
