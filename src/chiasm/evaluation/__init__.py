"""Pinned protocols: what is measured, on what, and how, so that two numbers are comparable or not printed at
all.

    pictures ──► metrics ──► curves ──► classical ──► codec     rate and distortion beside JPEG, WebP and AVIF
             └─► motions ──► equivariance │ shift │ probe ──► space     what a space is worth
                                                    └─► tables, plots ──► report

Nothing here knows an encoder or a codec: every protocol takes plain functions of tensors.
"""
