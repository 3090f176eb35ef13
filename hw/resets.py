"""Resets of many loads, divided: a register for each part, so that none has a long way to go."""

from amaranth.hdl import ResetInserter

from hw.copies import kept


class Parts:
    """The submodules of ``m``, each of which is reset by registers of its own.

    Used in the place of ``m.submodules``: ``parts.name = unit``. ``resets`` maps domains to the
    levels that reset them; all parts are reset ``cycles`` cycles later. Other domains, all if it is
    empty, stay as they are: a simulation has the domains' own resets.

    The module's own registers are not reset. Those behind parts in reset take what these give, so
    a reset lasts for longer than the longest row of them.
    """

    def __init__(self, m, resets, *, cycles=1):
        vars(self).update(_m=m, _resets=dict(resets), _cycles=cycles)

    def __setattr__(self, name, unit):
        self[name] = unit

    def __setitem__(self, name, unit):
        controls = {}
        for domain, reset in self._resets.items():
            for cycle in range(self._cycles):
                later = kept(1, f"{name}_{domain}_reset{cycle}", reset_less=True)
                self._m.d[domain] += later.eq(reset)
                reset = later
            controls[domain] = reset
        self._m.submodules[name] = ResetInserter(controls)(unit) if controls else unit
