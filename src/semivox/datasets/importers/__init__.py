"""Layouts that `semivox import` converts: each finds the cases, none of them writes."""
