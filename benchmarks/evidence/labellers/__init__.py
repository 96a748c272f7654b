"""The seven labellers: real step labels of known, uneven quality; does learning the weights find out whom to trust?"""
